"""Products are created, read, changed, deleted and brought back, through the service as clients have it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import field_mask_pb2
from google.type import money_pb2
from shop.product.v1 import product_pb2

from tests.support.invariants import check_stock
from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refusal_of, refused

BAD_FIELDS: list[tuple[dict[str, Any], set[str]]] = [
    ({"name": ""}, {"product.name"}),
    ({"name": "  \n"}, {"product.name"}),
    ({"name": "x" * 201}, {"product.name"}),
    ({"name": "a\0b"}, {"product.name"}),
    ({"description": "a\0b"}, {"product.description"}),
    ({"description": "x" * 10_001}, {"product.description"}),
    ({"category": "a\nb"}, {"product.category"}),
    ({"name": "\u200b\u2060"}, {"product.name"}),
    ({"name": "\u3164"}, {"product.name"}),
    ({"name": "\u0301"}, {"product.name"}),
    ({"name": "a\u2028b"}, {"product.name"}),
    ({"name": "a\u0085b"}, {"product.name"}),
    ({"description": "a\u202eb"}, {"product.description"}),
    ({"category": "x" * 101, "variant": "x" * 101}, {"product.category", "product.variant"}),
    ({"slug": "Steel"}, {"product.slug"}),
    ({"slug": "a--b"}, {"product.slug"}),
    ({"slug": "-a"}, {"product.slug"}),
    ({"slug": "a\0"}, {"product.slug"}),
    ({"slug": "a" * 101}, {"product.slug"}),
    ({"sku": "A 1"}, {"product.sku"}),
    ({"sku": "Ä1"}, {"product.sku"}),
    ({"sku": "A" * 65}, {"product.sku"}),
    ({"price": None}, {"product.price.currency_code"}),
    ({"price": money_pb2.Money(currency_code="eur", units=1)}, {"product.price.currency_code"}),
    ({"price": money_pb2.Money(currency_code="EUR", units=-1)}, {"product.price.units"}),
    ({"price": money_pb2.Money(currency_code="EUR", nanos=-1000)}, {"product.price.nanos"}),
    ({"price": money_pb2.Money(currency_code="EUR", nanos=1)}, {"product.price.nanos"}),
    ({"price": money_pb2.Money(currency_code="EUR", nanos=333_333_000)}, {"product.price.nanos"}),
    ({"price": money_pb2.Money(currency_code="JPY", units=100, nanos=500_000_000)}, {"product.price.nanos"}),
    ({"price": money_pb2.Money(currency_code="XXX", units=1)}, {"product.price.currency_code"}),
    ({"price": money_pb2.Money(currency_code="EUR", units=2**63 - 1)}, {"product.price.units"}),
    ({"stock": -1}, {"product.stock"}),
    ({"stock": 100_000_001}, {"product.stock"}),
    ({"star": 5.1}, {"product.star"}),
    ({"star": float("nan")}, {"product.star"}),
    ({"star": float("inf")}, {"product.star"}),
    ({"image_uri": "javascript:alert(1)"}, {"product.image_uri"}),
    ({"image_uri": "//elsewhere.example/x.png"}, {"product.image_uri"}),
    ({"image_uri": "watch.png"}, {"product.image_uri"}),
    ({"image_uri": "https://"}, {"product.image_uri"}),
    ({"image_uri": "/a\0b"}, {"product.image_uri"}),
]

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


async def update(
    shop: ProductShop, product_id: str, *paths: str, etag: str = "", if_match: str = "", **fields: Any
) -> product_pb2.Product:
    request = product_pb2.UpdateProductRequest(
        product=product_pb2.Product(id=product_id, etag=etag, **fields),
        update_mask=field_mask_pb2.FieldMask(paths=paths) if paths else None,
    )
    return await shop.products.UpdateProduct(request, metadata=(("if-match", if_match),) if if_match else ())


async def delete(shop: ProductShop, product_id: str, etag: str = "") -> product_pb2.Product:
    return await shop.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product_id, etag=etag))


async def undelete(shop: ProductShop, product_id: str, etag: str = "") -> product_pb2.Product:
    return await shop.products.UndeleteProduct(product_pb2.UndeleteProductRequest(id=product_id, etag=etag))


class TestCreate:
    async def test_a_product_is_answered_as_it_was_sent_and_read_the_same(self, shop: ProductShop) -> None:
        sent: dict[str, Any] = {
            "name": "Steel watch",
            "slug": "steel-watch-41",
            "sku": "W.41_b",
            "variant": "black, 41 mm",
            "description": "Two lines,\nand 100 % steel.",
            "category": "Watches",
            "price": money_pb2.Money(currency_code="EUR", units=1_000_000_000, nanos=990_000_000),
            "stock": 100_000_000,
            "star": 4.7,
            "image_uri": "https://example.com/watch.png",
        }
        created = await shop.products.CreateProduct(
            product_pb2.CreateProductRequest(product=product_pb2.Product(**sent))
        )
        assert {name: getattr(created, name) for name in sent} == sent
        assert created.etag
        assert created.create_time == created.update_time
        assert not created.HasField("delete_time")
        assert await shop.get(created.id) == created

    async def test_slug_and_sku_are_made_from_the_name(self, shop: ProductShop) -> None:
        created = await shop.create("Café Crème, große Tasse")
        assert (created.slug, created.sku) == ("cafe-creme-grosse-tasse", "CAF-CRE-GRO-TAS")

    async def test_products_of_one_name_get_slugs_and_skus_of_their_own(self, shop: ProductShop) -> None:
        """A name that was made up never fails a create; twenty at once, a name without any ASCII letter among them."""
        created = await asyncio.gather(*(shop.create(name) for name in ["Steel watch"] * 10 + ["Часы"] * 10))
        assert len({each.slug for each in created}) == len({each.sku for each in created}) == 20

    @pytest.mark.parametrize(("field", "value"), [("slug", "steel"), ("sku", "ST-1")])
    async def test_a_slug_or_sku_that_a_live_product_has_is_refused(
        self, shop: ProductShop, field: str, value: str
    ) -> None:
        fields: dict[str, Any] = {field: value}
        await shop.create("First", **fields)
        with refused() as error:
            await shop.create("Second", **fields)
        assert (error.what.code, error.what.reason) == ("ALREADY_EXISTS", f"{field.upper()}_TAKEN")
        assert error.what.metadata == {field: value}

    async def test_what_only_the_service_writes_is_ignored(self, shop: ProductShop) -> None:
        """AIP-203: output-only fields in a request are no error."""
        created = await shop.create(id=UNKNOWN, etag="77")
        assert created.id != UNKNOWN
        assert created.etag != "77"

    async def test_first_stock_is_in_the_ledger(self, shop: ProductShop) -> None:
        await shop.create(stock=7)
        await shop.create(stock=0)
        async with shop.connection() as connection:
            await check_stock(connection)

    async def test_bad_fields_are_named_and_nothing_is_written(
        self, shop: ProductShop, subtests: pytest.Subtests
    ) -> None:
        for fields, violations in BAD_FIELDS:
            with subtests.test(str(fields)[:80]):
                with refused() as error:
                    await shop.create(**fields)
                assert (error.what.code, set(error.what.fields)) == ("INVALID_ARGUMENT", violations)
        assert not (await shop.products.ListProducts(product_pb2.ListProductsRequest())).products

    async def test_a_request_without_a_product_names_all_that_is_missing(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.products.CreateProduct(product_pb2.CreateProductRequest())
        assert {"product.name", "product.price.currency_code"} == set(error.what.fields)


class TestGet:
    async def test_the_etag_is_a_response_header_too(self, shop: ProductShop) -> None:
        created = await shop.create()
        call = shop.products.GetProduct(product_pb2.GetProductRequest(id=created.id))
        assert ("etag", f'W/"{created.etag}"') in tuple(await call.initial_metadata())
        await call

    async def test_an_id_may_be_in_capitals(self, shop: ProductShop) -> None:
        created = await shop.create()
        assert (await shop.get(created.id.upper())).id == created.id

    async def test_an_unknown_product_is_not_found(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.get(UNKNOWN)
        assert (error.what.code, error.what.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        assert error.what.metadata == {"product_id": UNKNOWN}

    async def test_those_who_ask_at_the_same_time_get_what_each_asked_for(self, shop: ProductShop) -> None:
        """They share a statement. A product that is unknown, deleted or asked for twice is no other's concern."""
        products = [await shop.create(f"Watch {n}") for n in range(8)]
        products[3] = await delete(shop, products[3].id)
        ids = [each.id for each in products]
        wanted = [*ids, UNKNOWN, *reversed(ids)]
        answers = await asyncio.gather(*map(shop.get, wanted), return_exceptions=True)
        unknown = answers.pop(8)
        assert answers == [*products, *reversed(products)]
        assert isinstance(unknown, grpc.aio.AioRpcError)
        assert refusal_of(unknown).reason == "PRODUCT_NOT_FOUND"

    async def test_a_malformed_id_is_refused(self, shop: ProductShop) -> None:
        for value in ("", "x", "123e4567e89b42d3a456426614174000", UNKNOWN + "0", "\0"):
            with refused() as error:
                await shop.get(value)
            assert (error.what.code, set(error.what.fields)) == ("INVALID_ARGUMENT", {"id"})

    async def test_a_batch_comes_in_the_order_asked_for_deleted_ones_too(self, shop: ProductShop) -> None:
        ids = [(await shop.create(f"Watch {number}")).id for number in range(5)]
        await delete(shop, ids[2])
        ids.reverse()
        found = (await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=ids))).products
        assert [each.id for each in found] == ids
        assert found[2].HasField("delete_time")

    async def test_a_batch_with_an_unknown_product_names_the_first(self, shop: ProductShop) -> None:
        created = await shop.create()
        other = UNKNOWN.replace("4", "5")
        with refused() as error:
            await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=[created.id, other, UNKNOWN]))
        assert (error.what.code, error.what.metadata["product_id"]) == ("NOT_FOUND", other)

    async def test_a_malformed_batch_is_refused(self, shop: ProductShop) -> None:
        """None at all, a malformed one, one twice, too many."""
        for ids, fields in (
            ([], {"ids"}),
            ([UNKNOWN, "x"], {"ids[1]"}),
            ([UNKNOWN, UNKNOWN], {"ids[1]"}),
            ([UNKNOWN] * 101, {"ids"}),
        ):
            with refused() as error:
                await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=ids))
            assert (error.what.code, set(error.what.fields)) == ("INVALID_ARGUMENT", fields)


class TestUpdate:
    async def test_a_mask_says_what_is_written(self, shop: ProductShop) -> None:
        """What the mask names is written even if empty; the rest stays even if sent."""
        created = await shop.create(description="old", category="Watches", star=3)
        changed = await update(
            shop, created.id, "description", "price", name="Other", description="", category="Clocks", price=euros(9)
        )
        assert (changed.name, changed.description, changed.category) == ("Steel watch", "", "Watches")
        assert changed.price == euros(9)
        assert changed.etag != created.etag
        assert changed.update_time.ToNanoseconds() > created.update_time.ToNanoseconds()
        assert await shop.get(created.id) == changed

    async def test_without_a_mask_the_populated_fields_are_written(self, shop: ProductShop) -> None:
        """AIP-134. What an update cannot write is ignored, as clients send back what they have read."""
        created = await shop.create(description="old", star=3)
        created.star = 0
        created.description = "new"
        created.stock = 99
        changed = await shop.products.UpdateProduct(product_pb2.UpdateProductRequest(product=created))
        assert (changed.description, changed.star, changed.stock) == ("new", 3, 10)

    async def test_a_star_replaces_everything_writable(self, shop: ProductShop) -> None:
        created = await shop.create(description="old", category="Watches", star=3, variant="blue", image_uri="/x.png")
        changed = await update(shop, created.id, "*", name="Wall clock", price=euros(1))
        empty = (changed.description, changed.category, changed.star, changed.variant, changed.image_uri)
        assert empty == ("", "", 0, "", "")
        assert (changed.name, changed.slug, changed.sku) == ("Wall clock", "wall-clock", "WAL-CLO")
        assert (changed.stock, changed.create_time) == (created.stock, created.create_time)

    async def test_an_update_of_nothing_changes_nothing(self, shop: ProductShop) -> None:
        created = await shop.create()
        assert await update(shop, created.id) == created

    async def test_a_new_name_leaves_the_slug(self, shop: ProductShop) -> None:
        """Links to a product stay good when it is renamed."""
        created = await shop.create()
        assert (await update(shop, created.id, name="Gold watch")).slug == created.slug

    async def test_an_empty_slug_or_sku_is_made_from_the_name_where_that_is_written_too(
        self, shop: ProductShop
    ) -> None:
        await shop.create("Gold watch")
        created = await shop.create(slug="x", sku="y")
        changed = await update(shop, created.id, "name", "slug", "sku", name="Gold watch")
        suffix = created.id.replace("-", "")[:6]
        assert (changed.slug, changed.sku) == (f"gold-watch-{suffix}", f"GOL-WAT-{suffix.upper()}")

    @pytest.mark.parametrize("field", ["slug", "sku"])
    async def test_a_taken_slug_or_sku_is_refused(self, shop: ProductShop, field: str) -> None:
        first, second = await shop.create("First"), await shop.create("Second")
        with refused() as error:
            await update(shop, second.id, **{field: getattr(first, field)})
        assert (error.what.code, error.what.reason) == ("ALREADY_EXISTS", f"{field.upper()}_TAKEN")
        assert await shop.get(second.id) == second

    async def test_bad_masks_and_fields_are_named_and_nothing_is_written(
        self, shop: ProductShop, subtests: pytest.Subtests
    ) -> None:
        created = await shop.create()
        for paths, fields, violations in BAD_UPDATES:
            with subtests.test(f"{paths} {fields}"[:80]):
                with refused() as error:
                    await update(shop, created.id, *paths, **fields)
                assert (error.what.code, set(error.what.fields)) == ("INVALID_ARGUMENT", violations)
        assert await shop.get(created.id) == created

    async def test_an_unknown_or_malformed_product_is_refused(self, shop: ProductShop) -> None:
        with refused() as error:
            await update(shop, UNKNOWN, star=1)
        assert (error.what.code, error.what.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        with refused() as error:
            await update(shop, "x", star=1)
        assert set(error.what.fields) == {"product.id"}

    async def test_a_deleted_product_is_not_updated(self, shop: ProductShop) -> None:
        created = await shop.create()
        await delete(shop, created.id)
        some: dict[str, Any] = {"star": 1.0}
        for fields in (some, {}):
            with refused() as error:
                await update(shop, created.id, **fields)
            assert (error.what.code, error.what.reason) == ("FAILED_PRECONDITION", "PRODUCT_DELETED")


class TestEtag:
    async def test_a_stale_etag_aborts(self, shop: ProductShop) -> None:
        created = await shop.create()
        changed = await update(shop, created.id, etag=created.etag, star=1)
        assert changed.star == 1
        some: dict[str, Any] = {"star": 2.0}
        for stale in (created.etag, "nonsense", "\0", "01", "9" * 30):
            for fields in (some, {}):
                with refused() as error:
                    await update(shop, created.id, etag=stale, **fields)
                assert (error.what.code, error.what.reason) == ("ABORTED", "ETAG_MISMATCH")
        assert (await shop.get(created.id)).star == 1

    async def test_the_if_match_header_is_an_etag(self, shop: ProductShop) -> None:
        created = await shop.create()
        changed = await update(shop, created.id, if_match=f'"{created.etag}"', star=1)
        with refused() as error:
            await update(shop, created.id, if_match=f'"{created.etag}"', star=2)
        assert error.what.code == "ABORTED"
        assert (await update(shop, created.id, if_match="*", star=3)).etag != changed.etag

    async def test_of_many_conditional_updates_one_wins(self, shop: ProductShop) -> None:
        created = await shop.create()
        answers = await asyncio.gather(
            *(update(shop, created.id, etag=created.etag, star=n / 10) for n in range(1, 9)), return_exceptions=True
        )
        assert sum(isinstance(each, product_pb2.Product) for each in answers) == 1

    async def test_a_change_of_stock_leaves_the_etag(self, shop: ProductShop) -> None:
        created = await shop.create()
        await shop.reserve({created.id: 1})
        after = await shop.get(created.id)
        assert (after.stock, after.etag, after.update_time) == (9, created.etag, created.update_time)


class TestDelete:
    async def test_a_deleted_product_leaves_lists_and_is_still_answered(self, shop: ProductShop) -> None:
        created = await shop.create(category="Watches")
        deleted = await delete(shop, created.id)
        assert deleted.HasField("delete_time")
        assert await shop.get(created.id) == deleted
        assert not (await shop.products.ListProducts(product_pb2.ListProductsRequest())).products
        assert not (await shop.products.ListCategories(product_pb2.ListCategoriesRequest())).categories

    async def test_deleting_and_undeleting_twice_is_once(self, shop: ProductShop) -> None:
        created = await shop.create()
        deleted = await delete(shop, created.id, created.etag)
        assert await delete(shop, created.id) == deleted
        assert await delete(shop, created.id, created.etag) == deleted, "the retry of a conditional delete"
        live = await undelete(shop, created.id, deleted.etag)
        assert not live.HasField("delete_time")
        assert len({created.etag, deleted.etag, live.etag}) == 3
        assert await undelete(shop, created.id) == live
        assert await undelete(shop, created.id, deleted.etag) == live, "the retry of a conditional undelete"

    async def test_a_stale_etag_aborts(self, shop: ProductShop) -> None:
        created = await shop.create()
        changed = await update(shop, created.id, star=1)
        with refused() as error:
            await delete(shop, created.id, created.etag)
        assert (error.what.code, error.what.reason) == ("ABORTED", "ETAG_MISMATCH")
        await delete(shop, created.id)
        for stale in (created.etag, changed.etag):
            with refused() as error:
                await undelete(shop, created.id, stale)
            assert (error.what.code, error.what.reason) == ("ABORTED", "ETAG_MISMATCH")
        with refused() as error:
            await delete(shop, created.id, created.etag)
        assert error.what.code == "ABORTED"

    async def test_an_unknown_product_is_not_found(self, shop: ProductShop) -> None:
        for change in (delete, undelete):
            with refused() as error:
                await change(shop, UNKNOWN)
            assert (error.what.code, error.what.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
            with refused() as error:
                await change(shop, "x")
            assert set(error.what.fields) == {"id"}

    async def test_a_deleted_product_gives_its_names_free(self, shop: ProductShop) -> None:
        """And does not come back once they are taken."""
        first = await shop.create(slug="steel", sku="S1")
        await delete(shop, first.id)
        second = await shop.create(slug="steel", sku="S1")
        with refused() as error:
            await undelete(shop, first.id)
        assert (error.what.code, error.what.reason in {"SLUG_TAKEN", "SKU_TAKEN"}) == ("ALREADY_EXISTS", True)
        await delete(shop, second.id)
        await undelete(shop, first.id)
