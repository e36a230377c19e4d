"""Products are created: what is written, what is rejected, and that a request creates one product."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from google.type import money_pb2
from shop.product.v1 import product_pb2

from tests.support.invariants import check_stock
from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refused

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


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


class TestCreate:
    async def test_created_product_has_what_was_sent(self, shop: ProductShop) -> None:
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

    async def test_same_name_gets_different_slugs_and_skus(self, shop: ProductShop) -> None:
        """A generated slug or SKU never makes a create fail, even for ten at once or for a name without ASCII."""
        created = await asyncio.gather(*(shop.create(name) for name in ["Steel watch"] * 10 + ["Часы"] * 10))
        assert len({each.slug for each in created}) == len({each.sku for each in created}) == 20

    @pytest.mark.parametrize(("field", "value"), [("slug", "steel"), ("sku", "ST-1")])
    async def test_taken_slug_or_sku_is_rejected(self, shop: ProductShop, field: str, value: str) -> None:
        fields: dict[str, Any] = {field: value}
        await shop.create("First", **fields)
        with refused() as error:
            await shop.create("Second", **fields)
        assert (error.code, error.reason) == ("ALREADY_EXISTS", f"{field.upper()}_TAKEN")
        assert error.metadata == {field: value}

    async def test_output_only_fields_are_ignored(self, shop: ProductShop) -> None:
        """AIP-203: output-only fields in a request are no error."""
        created = await shop.create(id=UNKNOWN, etag="77")
        assert created.id != UNKNOWN
        assert created.etag != "77"

    async def test_first_stock_is_in_the_ledger(self, shop: ProductShop) -> None:
        await shop.create(stock=7)
        await shop.create(stock=0)
        async with shop.connection() as connection:
            await check_stock(connection)

    async def test_malformed_fields_are_named(self, shop: ProductShop, subtests: pytest.Subtests) -> None:
        for fields, violations in BAD_FIELDS:
            with subtests.test(str(fields)[:80]):
                with refused() as error:
                    await shop.create(**fields)
                assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", violations)
        assert not (await shop.products.ListProducts(product_pb2.ListProductsRequest())).products

    async def test_empty_request_names_the_required_fields(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.products.CreateProduct(product_pb2.CreateProductRequest())
        assert {"product.name", "product.price.currency_code"} == set(error.fields)


async def create(shop: ProductShop, key: str, name: str = "Steel watch", stock: int = 5) -> product_pb2.Product:
    product = product_pb2.Product(name=name, stock=stock, price=euros(12.5))
    return await shop.products.CreateProduct(product_pb2.CreateProductRequest(product=product, request_id=key))


async def test_retry_returns_the_current_product(product_database: str) -> None:
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


async def test_concurrent_retries_create_one_product(product_database: str) -> None:
    """Even if the client chose slug and SKU: the second call conflicts with those before it conflicts with the id."""
    async with product_shop(product_database) as shop:
        for n in range(60):
            product = product_pb2.Product(name="Steel watch", slug=f"watch-{n}", sku=f"W-{n}", price=euros(12.5))
            request = product_pb2.CreateProductRequest(product=product, request_id=str(uuid4()))
            responses = await asyncio.gather(*(shop.products.CreateProduct(request) for _ in range(4)))
            assert len({each.id for each in responses}) == 1


async def test_idempotency_key_header_is_a_key(product_database: str) -> None:
    request = product_pb2.CreateProductRequest(product=product_pb2.Product(name="Steel watch", price=euros(12.5)))
    headers = (("idempotency-key", str(uuid4())),)
    async with product_shop(product_database) as shop:
        first = await shop.products.CreateProduct(request, metadata=headers)
        assert await shop.products.CreateProduct(request, metadata=headers) == first


@pytest.mark.parametrize(("name", "stock"), [("Iron watch", 5), ("Steel watch", 6)])
async def test_key_with_another_product_is_rejected(product_database: str, name: str, stock: int) -> None:
    key = str(uuid4())
    async with product_shop(product_database) as shop:
        await create(shop, key)
        with refused() as error:
            await create(shop, key, name, stock)
        assert (error.code, error.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")


async def test_callers_may_use_the_same_key(product_database: str) -> None:
    request = product_pb2.CreateProductRequest(
        product=product_pb2.Product(name="Steel watch", price=euros(12.5)), request_id=str(uuid4())
    )
    async with product_shop(product_database, CALLER_HEADER="x-caller") as shop:
        ids = {
            (await shop.products.CreateProduct(request, metadata=(("x-caller", caller),))).id
            for caller in ("ada", "grace", "ada")
        }
        assert len(ids) == 2
