"""A product is created once, however often the request comes."""

import asyncio
from uuid import uuid4

import pytest
from shop.product.v1 import product_pb2

from tests.support.invariants import check_stock
from tests.support.product import ProductShop, euros, product_shop, refused


async def create(shop: ProductShop, key: str, name: str = "Steel watch", stock: int = 5) -> product_pb2.Product:
    product = product_pb2.Product(name=name, stock=stock, price=euros(12.5))
    return await shop.products.CreateProduct(product_pb2.CreateProductRequest(product=product, request_id=key))


async def test_a_retry_is_answered_with_the_product_as_it_is_now(product_database: str) -> None:
    key = str(uuid4())
    async with product_shop(product_database) as shop:
        first = await create(shop, key)
        assert await create(shop, key) == first
        await shop.adjust(first.id, -2)
        assert (await create(shop, key)).stock == 3
        deleted = await shop.products.DeleteProduct(product_pb2.DeleteProductRequest(id=first.id))
        assert await create(shop, key) == deleted
        page = await shop.products.ListProducts(product_pb2.ListProductsRequest())
        assert not page.products
        async with shop.connection() as connection:
            await check_stock(connection)


async def test_the_same_request_twice_at_a_time_is_one_product(product_database: str) -> None:
    """Also with a slug and a sku of the client's: the second call meets those before it meets its id."""
    async with product_shop(product_database) as shop:
        for n in range(60):
            product = product_pb2.Product(name="Steel watch", slug=f"watch-{n}", sku=f"W-{n}", price=euros(12.5))
            request = product_pb2.CreateProductRequest(product=product, request_id=str(uuid4()))
            answers = await asyncio.gather(*(shop.products.CreateProduct(request) for _ in range(4)))
            assert len({each.id for each in answers}) == 1


async def test_the_header_does_the_same(product_database: str) -> None:
    request = product_pb2.CreateProductRequest(product=product_pb2.Product(name="Steel watch", price=euros(12.5)))
    headers = (("idempotency-key", str(uuid4())),)
    async with product_shop(product_database) as shop:
        first = await shop.products.CreateProduct(request, metadata=headers)
        assert await shop.products.CreateProduct(request, metadata=headers) == first


@pytest.mark.parametrize(("name", "stock"), [("Iron watch", 5), ("Steel watch", 6)])
async def test_the_same_key_with_another_product_is_refused(product_database: str, name: str, stock: int) -> None:
    key = str(uuid4())
    async with product_shop(product_database) as shop:
        await create(shop, key)
        with refused() as error:
            await create(shop, key, name, stock)
        assert (error.what.code, error.what.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")


async def test_keys_of_different_callers_do_not_meet(product_database: str) -> None:
    request = product_pb2.CreateProductRequest(
        product=product_pb2.Product(name="Steel watch", price=euros(12.5)), request_id=str(uuid4())
    )
    async with product_shop(product_database, CALLER_HEADER="x-caller") as shop:
        ids = {
            (await shop.products.CreateProduct(request, metadata=(("x-caller", caller),))).id
            for caller in ("ada", "grace", "ada")
        }
        assert len(ids) == 2


async def test_an_update_of_nothing_but_stock_is_refused(product_database: str) -> None:
    """It would be answered as if it had been done."""
    async with product_shop(product_database) as shop:
        product = await shop.create()
        with refused() as error:
            await shop.products.UpdateProduct(
                product_pb2.UpdateProductRequest(product=product_pb2.Product(id=product.id, stock=3))
            )
        assert error.what.fields.keys() == {"product.stock"}
