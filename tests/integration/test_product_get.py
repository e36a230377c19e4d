"""Products are read: one, many at once, deleted ones too."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from shop.product.v1 import product_pb2

from tests.support.product import UNKNOWN, ProductShop, product_shop, refusal_of, refused


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


class TestGet:
    async def test_etag_is_a_response_header(self, shop: ProductShop) -> None:
        created = await shop.create()
        call = shop.products.GetProduct(product_pb2.GetProductRequest(id=created.id))
        assert ("etag", f'W/"{created.etag}"') in tuple(await call.initial_metadata())
        await call

    async def test_id_may_be_in_capitals(self, shop: ProductShop) -> None:
        created = await shop.create()
        assert (await shop.get(created.id.upper())).id == created.id

    async def test_unknown_product_is_not_found(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.get(UNKNOWN)
        assert (error.code, error.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        assert error.metadata == {"product_id": UNKNOWN}

    async def test_concurrent_reads_return_each_product(self, shop: ProductShop) -> None:
        """They share a statement. A product that is unknown, deleted or requested twice does not affect the others."""
        products = [await shop.create(f"Watch {n}") for n in range(8)]
        products[3] = await shop.delete(products[3].id)
        ids = [each.id for each in products]
        wanted = [*ids, UNKNOWN, *reversed(ids)]
        responses = await asyncio.gather(*map(shop.get, wanted), return_exceptions=True)
        unknown = responses.pop(8)
        assert responses == [*products, *reversed(products)]
        assert isinstance(unknown, grpc.aio.AioRpcError)
        assert refusal_of(unknown).reason == "PRODUCT_NOT_FOUND"

    async def test_malformed_id_is_rejected(self, shop: ProductShop) -> None:
        for value in ("", "x", "123e4567e89b42d3a456426614174000", UNKNOWN + "0", "\0"):
            with refused() as error:
                await shop.get(value)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"id"})

    async def test_batch_keeps_the_order_of_the_ids(self, shop: ProductShop) -> None:
        ids = [(await shop.create(f"Watch {number}")).id for number in range(5)]
        await shop.delete(ids[2])
        ids.reverse()
        found = (await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=ids))).products
        assert [each.id for each in found] == ids
        assert found[2].HasField("delete_time")

    async def test_batch_names_the_first_unknown_product(self, shop: ProductShop) -> None:
        created = await shop.create()
        other = UNKNOWN.replace("4", "5")
        with refused() as error:
            await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=[created.id, other, UNKNOWN]))
        assert (error.code, error.metadata["product_id"]) == ("NOT_FOUND", other)

    async def test_malformed_batch_is_rejected(self, shop: ProductShop) -> None:
        """No id, a malformed id, a duplicate id, too many ids."""
        for ids, fields in (
            ([], {"ids"}),
            ([UNKNOWN, "x"], {"ids[1]"}),
            ([UNKNOWN, UNKNOWN], {"ids[1]"}),
            ([UNKNOWN] * 101, {"ids"}),
        ):
            with refused() as error:
                await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=ids))
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", fields)
