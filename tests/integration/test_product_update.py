"""Products are changed: by mask, by populated fields, and under an etag."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.type import money_pb2
from shop.product.v1 import product_pb2

from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refused

BAD_UPDATES: list[tuple[list[str], dict[str, Any], set[str]]] = [
    (["colour"], {}, {"update_mask"}),
    (["price.units"], {"price": euros(1)}, {"update_mask"}),
    (["stock"], {"stock": 3}, {"update_mask"}),
    (["id"], {}, {"update_mask"}),
    (["etag"], {}, {"update_mask"}),
    (["create_time"], {}, {"update_mask"}),
    (["*", "name"], {"name": "x", "price": euros(1)}, {"update_mask"}),
    (["\0"], {}, {"update_mask"}),
    (["name"], {"name": ""}, {"product.name"}),
    (["*"], {"name": "x"}, {"product.price.currency_code"}),
    (["slug"], {}, {"product.slug"}),
    (["sku"], {"sku": "no good"}, {"product.sku"}),
    ([], {"star": -1}, {"product.star"}),
    ([], {"description": "\0"}, {"product.description"}),
    ([], {"price": money_pb2.Money(units=3)}, {"product.price.currency_code"}),
]


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


class TestUpdate:
    async def test_mask_selects_the_fields(self, shop: ProductShop) -> None:
        """Fields of the mask are written even if they are empty. Other fields are not written even if they are sent."""
        created = await shop.create(description="old", category="Watches", star=3)
        changed = await shop.update(
            created.id, "description", "price", name="Other", description="", category="Clocks", price=euros(9)
        )
        assert (changed.name, changed.description, changed.category) == ("Steel watch", "", "Watches")
        assert changed.price == euros(9)
        assert changed.etag != created.etag
        assert changed.update_time.ToNanoseconds() > created.update_time.ToNanoseconds()
        assert await shop.get(created.id) == changed

    async def test_populated_fields_are_written_without_mask(self, shop: ProductShop) -> None:
        """AIP-134. Read-only fields are ignored, because clients send back what they have read."""
        created = await shop.create(description="old", star=3)
        created.star = 0
        created.description = "new"
        created.stock = 99
        changed = await shop.products.UpdateProduct(product_pb2.UpdateProductRequest(product=created))
        assert (changed.description, changed.star, changed.stock) == ("new", 3, 10)

    async def test_star_mask_replaces_every_field(self, shop: ProductShop) -> None:
        created = await shop.create(description="old", category="Watches", star=3, variant="blue", image_uri="/x.png")
        changed = await shop.update(created.id, "*", name="Wall clock", price=euros(1))
        empty = (changed.description, changed.category, changed.star, changed.variant, changed.image_uri)
        assert empty == ("", "", 0, "", "")
        assert (changed.name, changed.slug, changed.sku) == ("Wall clock", "wall-clock", "WAL-CLO")
        assert (changed.stock, changed.create_time) == (created.stock, created.create_time)

    async def test_empty_update_changes_nothing(self, shop: ProductShop) -> None:
        created = await shop.create()
        assert await shop.update(created.id) == created

    async def test_new_name_keeps_the_slug(self, shop: ProductShop) -> None:
        """Links to a product stay valid when it is renamed."""
        created = await shop.create()
        assert (await shop.update(created.id, name="Gold watch")).slug == created.slug

    async def test_empty_slug_and_sku_are_made_from_new_name(self, shop: ProductShop) -> None:
        await shop.create("Gold watch")
        created = await shop.create(slug="x", sku="y")
        changed = await shop.update(created.id, "name", "slug", "sku", name="Gold watch")
        suffix = created.id.replace("-", "")[:6]
        assert (changed.slug, changed.sku) == (f"gold-watch-{suffix}", f"GOL-WAT-{suffix.upper()}")

    @pytest.mark.parametrize("field", ["slug", "sku"])
    async def test_taken_slug_or_sku_is_rejected(self, shop: ProductShop, field: str) -> None:
        first, second = await shop.create("First"), await shop.create("Second")
        with refused() as error:
            await shop.update(second.id, **{field: getattr(first, field)})
        assert (error.code, error.reason) == ("ALREADY_EXISTS", f"{field.upper()}_TAKEN")
        assert await shop.get(second.id) == second

    async def test_malformed_masks_and_fields_are_named(self, shop: ProductShop, subtests: pytest.Subtests) -> None:
        created = await shop.create()
        for paths, fields, violations in BAD_UPDATES:
            with subtests.test(f"{paths} {fields}"[:80]):
                with refused() as error:
                    await shop.update(created.id, *paths, **fields)
                assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", violations)
        assert await shop.get(created.id) == created

    async def test_unknown_or_malformed_id_is_rejected(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.update(UNKNOWN, star=1)
        assert (error.code, error.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        with refused() as error:
            await shop.update("x", star=1)
        assert set(error.fields) == {"product.id"}

    async def test_deleted_product_is_not_updated(self, shop: ProductShop) -> None:
        created = await shop.create()
        await shop.delete(created.id)
        some: dict[str, Any] = {"star": 1.0}
        for fields in (some, {}):
            with refused() as error:
                await shop.update(created.id, **fields)
            assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PRODUCT_DELETED")

    async def test_update_of_stock_alone_is_rejected(self, shop: ProductShop) -> None:
        """Otherwise it would look as if the stock had been written."""
        created = await shop.create()
        with refused() as error:
            await shop.update(created.id, stock=3)
        assert error.fields.keys() == {"product.stock"}


class TestEtag:
    async def test_stale_etag_aborts(self, shop: ProductShop) -> None:
        created = await shop.create()
        changed = await shop.update(created.id, etag=created.etag, star=1)
        assert changed.star == 1
        some: dict[str, Any] = {"star": 2.0}
        for stale in (created.etag, "nonsense", "\0", "01", "9" * 30):
            for fields in (some, {}):
                with refused() as error:
                    await shop.update(created.id, etag=stale, **fields)
                assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
        assert (await shop.get(created.id)).star == 1

    async def test_if_match_header_is_an_etag(self, shop: ProductShop) -> None:
        created = await shop.create()
        changed = await shop.update(created.id, if_match=f'"{created.etag}"', star=1)
        with refused() as error:
            await shop.update(created.id, if_match=f'"{created.etag}"', star=2)
        assert error.code == "ABORTED"
        assert (await shop.update(created.id, if_match="*", star=3)).etag != changed.etag

    async def test_one_of_many_conditional_updates_wins(self, shop: ProductShop) -> None:
        created = await shop.create()
        responses = await asyncio.gather(
            *(shop.update(created.id, etag=created.etag, star=n / 10) for n in range(1, 9)), return_exceptions=True
        )
        assert sum(isinstance(each, product_pb2.Product) for each in responses) == 1

    async def test_change_of_stock_keeps_the_etag(self, shop: ProductShop) -> None:
        created = await shop.create()
        await shop.reserve({created.id: 1})
        after = await shop.get(created.id)
        assert (after.stock, after.etag, after.update_time) == (9, created.etag, created.update_time)
