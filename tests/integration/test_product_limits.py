"""Money, texts and sizes at their limits, through the service, and what an older release let in."""

from collections.abc import AsyncIterator

import pytest
from google.protobuf import field_mask_pb2
from google.type import money_pb2
from psycopg import sql
from shop.product.v1 import product_pb2, stock_pb2

from order.stock import PAGE_SIZE
from tests.support.order import create_request, order_shop
from tests.support.product import ProductShop, product_shop, refused

YEN = money_pb2.Money(currency_code="JPY", units=100, nanos=500_000_000)
"""Half a yen too fine. Older releases accepted it."""


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


async def rewrite(shop: ProductShop, product_id: str, **columns: object) -> None:
    """Writes a product as an older release did."""
    async with shop.connection() as connection:
        for column, value in columns.items():
            await connection.execute(
                sql.SQL("UPDATE product SET {} = %s WHERE id = %s").format(sql.Identifier(column)), (value, product_id)
            )


async def update(shop: ProductShop, product: product_pb2.Product, *paths: str) -> product_pb2.Product:
    mask = field_mask_pb2.FieldMask(paths=paths) if paths else None
    return await shop.products.UpdateProduct(product_pb2.UpdateProductRequest(product=product, update_mask=mask))


class TestMoney:
    @pytest.mark.parametrize("price", [("JPY", 1_500, 0), ("KWD", 1, 125_000_000), ("CLF", 0, 100_000)])
    async def test_price_may_have_the_currencys_decimals(self, shop: ProductShop, price: tuple[str, int, int]) -> None:
        currency, units, nanos = price
        money = money_pb2.Money(currency_code=currency, units=units, nanos=nanos)
        assert (await shop.get((await shop.create(price=money)).id)).price == money

    async def test_older_finer_price_is_ordered_exactly(self, shop: ProductShop, order_database: str) -> None:
        product = await shop.create()
        await rewrite(shop, product.id, currency="JPY", price_micros=100_500_000)
        assert (await shop.get(product.id)).price == YEN
        async with order_shop(order_database, shop.address) as orders:
            order = await orders.orders.CreateOrder(create_request({product.id: 3}))
        assert order.total == money_pb2.Money(currency_code="JPY", units=301, nanos=500_000_000)

    async def test_older_finer_price_stays_until_written(self, shop: ProductShop) -> None:
        product = await shop.create()
        await rewrite(shop, product.id, currency="JPY", price_micros=100_500_000)
        changed = await update(shop, product_pb2.Product(id=product.id, name="Clock"))
        assert (changed.name, changed.price) == ("Clock", YEN)
        with refused() as error:
            await update(shop, changed)  # what was read is sent back whole, the price too
        assert error.fields == {"product.price.nanos": "must be 0: JPY has no decimal places"}


class TestText:
    async def test_texts_are_stored_in_nfc(self, shop: ProductShop) -> None:
        made = await shop.create("Cafe\u0301", variant="u\u0308", description="a\u0300\n.", category="E\u0301te\u0301")
        assert (made.name, made.variant, made.description, made.category) == ("Café", "ü", "à\n.", "Été")
        changed = await update(shop, product_pb2.Product(id=made.id, name="The\u0301"))
        assert changed.name == "Thé"

    async def test_search_and_category_ignore_composition(self, shop: ProductShop) -> None:
        await shop.create("Cafe\u0301", category="Cafe\u0301 stuff")
        await shop.create("Caf\u00e9 2", category="Caf\u00e9 stuff")
        categories = await shop.products.ListCategories(product_pb2.ListCategoriesRequest())
        assert [each.name for each in categories.categories] == ["Caf\u00e9 stuff"]
        for search, category in (("cafe\u0301", ""), ("CAF\u00c9", ""), ("", "Cafe\u0301 stuff")):
            found = await shop.products.ListProducts(
                product_pb2.ListProductsRequest(search=search, category=category, order_by="createTime")
            )
            assert [each.name for each in found.products] == ["Caf\u00e9", "Caf\u00e9 2"]

    async def test_unknown_path_of_a_mask_is_named(self, shop: ProductShop) -> None:
        made = await shop.create()
        for path, shown in (
            (" description", '" description"'),
            ("\u202e", r'"\u202e"'),
            ("x" * 60, f'"{"x" * 50}..."'),
        ):
            with refused() as error:
                await update(shop, product_pb2.Product(id=made.id, name="x"), "name", path)
            assert error.fields == {"update_mask": f"unknown field {shown}"}


WIDE = "\U0001f381"
"""A character of four bytes, which is the most."""


class TestSizes:
    """No response exceeds the 4 MiB that clients accept by default. The channel of the tests is such a client."""

    async def test_batch_too_large_for_a_response_is_rejected(self, shop: ProductShop) -> None:
        longest = await shop.create(
            WIDE * 200, variant=WIDE * 100, category=WIDE * 100, description=WIDE * 10_000, image_uri="/" + "ä" * 1_999
        )
        async with shop.connection() as connection:
            rows = await connection.execute(
                "INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros,"
                " stock, star, image_uri)"
                " SELECT gen_random_uuid(), name, i, i, variant, description, category, currency, price_micros,"
                " stock, star, image_uri FROM product, generate_series(1, 100) AS i WHERE id = %s"
                " RETURNING id::text",
                (longest.id,),
            )
            ids = [row[0] for row in await rows.fetchall()]
        with refused() as error:
            await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=ids))
        assert error.code == "INVALID_ARGUMENT"
        assert error.fields["ids"].startswith("the response would be too large; request at most ")
        number = int(error.fields["ids"].split()[-4])
        found = await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=ids[:number]))
        assert len(found.products) == number > 50
        with refused():
            await shop.products.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=ids[: number + 1]))

    async def test_largest_reservations_are_listed_in_pages(self, shop: ProductShop) -> None:
        """The order service requests 50 at a time."""
        async with shop.connection() as connection:
            rows = await connection.execute(
                "INSERT INTO reservation (id, state, items, expire_time)"
                " SELECT gen_random_uuid(), 'HELD', items, now() FROM generate_series(1, 101), (SELECT jsonb_agg("
                " jsonb_build_object('product_id', gen_random_uuid(), 'quantity', 100000000, 'name', %s::text,"
                " 'currency', 'EUR', 'price_micros', 999999990000)) AS items FROM generate_series(1, 50)) AS most"
                " RETURNING id::text",
                (WIDE * 200,),
            )
            ids = sorted(row[0] for row in await rows.fetchall())
        batch = stock_pb2.BatchGetReservationsRequest
        with refused() as error:
            await shop.stock.BatchGetReservations(batch(reservation_ids=ids[:100]))
        assert "request at most" in error.fields["reservation_ids"]
        assert (
            len((await shop.stock.BatchGetReservations(batch(reservation_ids=ids[:PAGE_SIZE]))).reservations)
            == PAGE_SIZE
        )
        listed: list[str] = []
        request = stock_pb2.ListReservationsRequest()
        while not listed or request.page_token:
            page = await shop.stock.ListReservations(request)
            listed += [each.id for each in page.reservations]
            request.page_token = page.next_page_token
        assert listed == ids
