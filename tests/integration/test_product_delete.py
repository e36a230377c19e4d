"""Products are deleted and undeleted."""

from collections.abc import AsyncIterator

import pytest
from shop.product.v1 import product_pb2

from tests.support.product import UNKNOWN, ProductShop, product_shop, refused


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


class TestDelete:
    async def test_deleted_product_is_unlisted_but_readable(self, shop: ProductShop) -> None:
        created = await shop.create(category="Watches")
        deleted = await shop.delete(created.id)
        assert deleted.HasField("delete_time")
        assert await shop.get(created.id) == deleted
        assert not (await shop.products.ListProducts(product_pb2.ListProductsRequest())).products
        assert not (await shop.products.ListCategories(product_pb2.ListCategoriesRequest())).categories

    async def test_repeated_delete_and_undelete_are_idempotent(self, shop: ProductShop) -> None:
        created = await shop.create()
        deleted = await shop.delete(created.id, created.etag)
        assert await shop.delete(created.id) == deleted
        assert await shop.delete(created.id, created.etag) == deleted, "the retry of a conditional delete"
        live = await shop.undelete(created.id, deleted.etag)
        assert not live.HasField("delete_time")
        assert len({created.etag, deleted.etag, live.etag}) == 3
        assert await shop.undelete(created.id) == live
        assert await shop.undelete(created.id, deleted.etag) == live, "the retry of a conditional undelete"

    async def test_stale_etag_aborts(self, shop: ProductShop) -> None:
        created = await shop.create()
        changed = await shop.update(created.id, star=1)
        with refused() as error:
            await shop.delete(created.id, created.etag)
        assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
        await shop.delete(created.id)
        for stale in (created.etag, changed.etag):
            with refused() as error:
                await shop.undelete(created.id, stale)
            assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
        with refused() as error:
            await shop.delete(created.id, created.etag)
        assert error.code == "ABORTED"

    async def test_unknown_product_is_not_found(self, shop: ProductShop) -> None:
        for change in (shop.delete, shop.undelete):
            with refused() as error:
                await change(UNKNOWN)
            assert (error.code, error.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
            with refused() as error:
                await change("x")
            assert set(error.fields) == {"id"}

    async def test_deleted_product_frees_slug_and_sku(self, shop: ProductShop) -> None:
        """It cannot be undeleted while another product has them."""
        first = await shop.create(slug="steel", sku="S1")
        await shop.delete(first.id)
        second = await shop.create(slug="steel", sku="S1")
        with refused() as error:
            await shop.undelete(first.id)
        assert (error.code, error.reason in {"SLUG_TAKEN", "SKU_TAKEN"}) == ("ALREADY_EXISTS", True)
        await shop.delete(second.id)
        await shop.undelete(first.id)
