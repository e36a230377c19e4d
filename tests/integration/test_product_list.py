"""Lists of products: pages, orders, search, categories, and tokens that belong to one query."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from shop.product.v1 import product_pb2

from product.listing import ProductQuery, parse_order_by
from runtime.pages import Cursor, SortKey
from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refused

ORDERS = [field + direction for field in ("name", "price", "create_time", "star") for direction in ("", " desc")]

FORGED = [
    ("create_time desc", '[1,"x"]'),
    ("create_time desc", f'[1e400,"{UNKNOWN}"]'),
    ("create_time desc", f'[{10**30},"{UNKNOWN}"]'),
    ("create_time desc", f'[-{10**17},"{UNKNOWN}"]'),
    ("create_time desc", f'["1","{UNKNOWN}"]'),
    ("create_time desc", f'[true,"{UNKNOWN}"]'),
    ("create_time desc", "[1]"),
    ("name", f'["a\\u0000","{UNKNOWN}"]'),
    ("name", f'["\\ud800","{UNKNOWN}"]'),
]

SEARCHES: list[tuple[str, set[str]]] = [
    ("steel", {"Steel watch", "Wall clock"}),
    ("WATCH", {"Steel watch", "Gold Watch"}),
    ("atc", {"Steel watch", "Gold Watch"}),
    ("watch steel", {"Steel watch"}),
    ("  watch\tsteel \n", {"Steel watch"}),
    ("steel gold", set()),
    ("steel steel steel", {"Steel watch", "Wall clock"}),
    ("gw-0815", {"Gold Watch"}),
    ("timepieces", {"Wall clock"}),
    ("größe", {"Gold Watch"}),
    ("GRÖSSE", set()),
    ("GRÖẞE", {"Gold Watch"}),
    ("50%", {"Wall clock"}),
    ("%", {"Wall clock"}),
    ("5_%", set()),
    ("_", {"Gold Watch"}),
    ("\\", {"Steel watch"}),
    ("c\\d", {"Steel watch"}),
    ("'; DROP TABLE product; --", set()),
    ("clock timepieces", {"Wall clock"}),
    ("clocktimepieces", set()),
    ("", {"Steel watch", "Gold Watch", "Wall clock"}),
    ("   ", {"Steel watch", "Gold Watch", "Wall clock"}),
]


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


async def page(
    shop: ProductShop, *, size: int = 0, token: str = "", search: str = "", category: str = "", order: str = ""
) -> product_pb2.ListProductsResponse:
    return await shop.products.ListProducts(
        product_pb2.ListProductsRequest(
            page_size=size, page_token=token, search=search, category=category, order_by=order
        )
    )


async def names(
    shop: ProductShop, *, size: int = 0, search: str = "", category: str = "", order: str = ""
) -> list[str]:
    """Returns the names of all products of a query, read page by page."""
    found: list[str] = []
    token = ""
    while True:
        response = await page(shop, size=size, token=token, search=search, category=category, order=order)
        found += [product.name for product in response.products]
        token = response.next_page_token
        if not token:
            return found


async def fill(shop: ProductShop, number: int) -> None:
    """Creates products `00`, `01` … of which many have the same price and star."""
    for index in range(number):
        await shop.create(f"{index:02}", price=euros(index % 3), star=index % 2)


def first_page(order: str) -> Cursor:
    return ProductQuery(sort=parse_order_by(order)).cursor("")


class TestPages:
    async def test_pages_have_each_product_once_in_order(self, shop: ProductShop, subtests: pytest.Subtests) -> None:
        await fill(shop, 13)
        for order in ("", *ORDERS):
            with subtests.test(order):
                found = await names(shop, size=4, order=order)
                assert sorted(found) == [f"{index:02}" for index in range(13)]
                assert found == await names(shop, size=100, order=order), "pages are the whole, cut"
                modulus = {"price": 3, "star": 2}.get(order.removesuffix(" desc"), 100)
                keys = [int(name) % modulus for name in found]
                assert keys == sorted(keys, reverse=order.endswith("desc") or not order)

    async def test_product_created_between_pages_shifts_nothing(self, shop: ProductShop) -> None:
        """Newest first: a page starts after the last product seen, not after a number of rows."""
        await fill(shop, 6)
        first = await page(shop, size=3)
        await shop.create("newer")
        second = await page(shop, size=3, token=first.next_page_token)
        assert [each.name for each in [*first.products, *second.products]] == ["05", "04", "03", "02", "01", "00"]
        assert not second.next_page_token

    async def test_product_deleted_between_pages_shifts_nothing(self, shop: ProductShop) -> None:
        await fill(shop, 6)
        first = await page(shop, size=3, order="name")
        for product in first.products:
            await shop.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product.id))
        second = await page(shop, size=3, order="name", token=first.next_page_token)
        assert [each.name for each in second.products] == ["03", "04", "05"]

    async def test_page_size_is_20_by_default_100_at_most(self, shop: ProductShop) -> None:
        async with shop.connection() as connection:
            await connection.execute(
                "INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros,"
                " stock, star, image_uri) SELECT gen_random_uuid(), n, n, n, '', '', '', 'EUR', 0, 0, 0, ''"
                " FROM generate_series(1, 120) AS s (i), CAST(i AS text) AS n"
            )
        assert len((await page(shop)).products) == 20
        assert len((await page(shop, size=1_000_000)).products) == 100
        assert len(await names(shop, size=7)) == 120, "also where all have one create_time"

    async def test_empty_list_has_no_token(self, shop: ProductShop) -> None:
        assert await page(shop) == product_pb2.ListProductsResponse()

    async def test_order_by_name_ignores_case(self, shop: ProductShop) -> None:
        for name in ("banana", "Apple", "apple pie", "Banana split", "Äpfel", "cherry"):
            await shop.create(name)
        found = await names(shop, size=2, order="name")
        assert found == ["Apple", "apple pie", "banana", "Banana split", "cherry", "Äpfel"]


class TestTokens:
    async def test_token_of_another_query_is_rejected(self, shop: ProductShop) -> None:
        await fill(shop, 3)
        token = (await page(shop, size=1, order="name")).next_page_token
        assert (await page(shop, size=2, token=token, order=" name ")).products, "the size may change"
        others: list[dict[str, Any]] = [
            {"order": "name desc"},
            {"order": "name", "search": "0"},
            {"order": "name", "category": "x"},
            {},
        ]
        for other in others:
            with refused() as error:
                await page(shop, token=token, **other)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"page_token"})

    async def test_malformed_token_is_rejected(self, shop: ProductShop) -> None:
        for token in ("x", "%%%", "\0", "e30", "W10", "bnVsbA", "a" * 5000, "ä"):
            with refused() as error:
                await page(shop, token=token)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"page_token"})

    async def test_forged_token_is_rejected(self, shop: ProductShop, subtests: pytest.Subtests) -> None:
        """The format of tokens is public. A token made by hand must not reach the database."""
        for order, keys in FORGED:
            true_one = first_page(order).token((1, UNKNOWN))
            fingerprint = json.loads(base64.urlsafe_b64decode(true_one + "=="))[0]
            token = base64.urlsafe_b64encode(f'["{fingerprint}",{keys[1:]}'.encode()).decode().rstrip("=")
            with subtests.test(keys):
                with refused() as error:
                    await page(shop, token=token, order=order)
                assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"page_token"})

    async def test_forged_token_of_valid_types_is_accepted(self, shop: ProductShop) -> None:
        odd: list[tuple[str, SortKey]] = [("price", 10**30), ("star", float("nan")), ("name", "")]
        for order, key in odd:
            await page(shop, token=first_page(order).token((key, UNKNOWN)), order=order)


class TestBadInput:
    async def test_unknown_order_by_is_rejected(self, shop: ProductShop) -> None:
        for order in ("colour", "name up", "name,price", "name desc desc", "NAME", "id", "\0", "desc"):
            with refused() as error:
                await page(shop, order=order)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"order_by"})

    async def test_malformed_filters_are_rejected(self, shop: ProductShop) -> None:
        bad: list[tuple[str, dict[str, Any]]] = [
            ("page_size", {"size": -1}),
            ("search", {"search": "x" * 201}),
            ("search", {"search": "a\0b"}),
            ("category", {"category": "a\0b"}),
            ("category", {"category": "x" * 101}),
        ]
        for field, filters in bad:
            with refused() as error:
                await page(shop, **filters)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {field})


class TestSearch:
    async def test_search_finds_words_as_substrings(self, shop: ProductShop, subtests: pytest.Subtests) -> None:
        r"""In name, description, category or SKU, in either case. %, _ and \ have no special meaning."""
        await shop.create("Steel watch", description="path c\\d")
        await shop.create("Gold Watch", sku="GW-0815", description="Größe_41")
        await shop.create("Wall clock", category="Timepieces", description="50% steel")
        await shop.create("Table", description="Oak.")
        for search, found in SEARCHES:
            with subtests.test(search):
                assert set(await names(shop, search=search)) - {"Table"} == found

    async def test_search_and_category_combine_across_pages(self, shop: ProductShop) -> None:
        for index in range(5):
            await shop.create(f"watch {index}", category="Watches")
            await shop.create(f"watch band {index}", category="Bands")
        found = await names(shop, size=2, search="watch", category="Watches", order="name")
        assert found == [f"watch {index}" for index in range(5)]
        assert not await names(shop, category="watches"), "a category is exact"

    async def test_rare_word_uses_the_trigram_index(self, product_database: str) -> None:
        """A common word needs no index: the first rows already have it."""
        async with product_shop(product_database) as shop:
            async with shop.connection() as connection:
                await connection.execute(
                    "INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros,"
                    " stock, star, image_uri) SELECT gen_random_uuid(), 'Watch ' || md5(n), n, n, '', md5(md5(n)),"
                    " '', 'EUR', i, 0, 0, '' FROM generate_series(1, 5000) AS s (i), CAST(i AS text) AS n"
                )
                await connection.execute("VACUUM ANALYZE product")
            await shop.create("A needle of gold")
            for _ in range(12):
                assert await names(shop, search="needle gold") == ["A needle of gold"]
                assert len((await page(shop, search="watch")).products) == 20
        # The service's connections are closed: their statistics are there.
        async with await psycopg.AsyncConnection.connect(product_database) as connection:
            rows = await connection.execute(
                "SELECT indexrelname, idx_scan FROM pg_stat_user_indexes WHERE relname = 'product'"
            )
            scans: dict[str, int] = dict(await rows.fetchall())
        assert (scans["product_search_idx"], scans["product_create_time_idx"]) == (12, 12)


class TestCategories:
    async def test_categories_are_sorted_and_listed_once(self, shop: ProductShop) -> None:
        for category in ("Watches", "Bands", "", "Watches", "Clocks", "Äpfel"):
            await shop.create(category=category)
        gone = await shop.create(category="Gone")
        await shop.products.DeleteProduct(product_pb2.DeleteProductRequest(id=gone.id))
        response = await shop.products.ListCategories(product_pb2.ListCategoriesRequest())
        assert [each.name for each in response.categories] == ["Bands", "Clocks", "Watches", "Äpfel"]
        assert not response.next_page_token

    async def categories(self, shop: ProductShop, size: int = 0, token: str = "") -> tuple[list[str], str]:
        response = await shop.products.ListCategories(
            product_pb2.ListCategoriesRequest(page_size=size, page_token=token)
        )
        return [each.name for each in response.categories], response.next_page_token

    async def test_pages_have_each_category_once_in_order(self, shop: ProductShop) -> None:
        for category in ("e", "b", "a", "d", "c", "b", ""):
            await shop.create(category=category)
        for size in (1, 2, 3, 5):
            found: list[str] = []
            token = ""
            while True:
                names, token = await self.categories(shop, size, token)
                assert len(names) == min(size, 5 - len(found))
                found += names
                if not token:
                    break
            assert found == ["a", "b", "c", "d", "e"]

    async def fill(self, shop: ProductShop) -> None:
        """Creates categories `0001` to `1001`."""
        async with shop.connection() as connection:
            await connection.execute(
                "INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros,"
                " stock, star, image_uri)"
                " SELECT gen_random_uuid(), n, n, n, '', '', lpad(n, 4, '0'), 'EUR', 0, 0, 0, ''"
                " FROM generate_series(1, 1001) AS s (i), CAST(i AS text) AS n"
            )
            await connection.execute("VACUUM ANALYZE product")

    async def test_page_has_at_most_1000_categories(self, shop: ProductShop) -> None:
        """Clients that know no page tokens read the first page only."""
        await self.fill(shop)
        first, token = await self.categories(shop)
        assert (first[0], first[-1], len(first)) == ("0001", "1000", 1_000)
        assert await self.categories(shop, 5_000, token) == (["1001"], "")

    async def test_page_reads_only_its_own_categories(self, product_database: str) -> None:
        async with product_shop(product_database) as shop:
            await self.fill(shop)
            assert (await self.categories(shop, 3))[0] == ["0001", "0002", "0003"]
        # The service's connections are closed: their statistics are there.
        async with await psycopg.AsyncConnection.connect(product_database) as connection:
            rows = await connection.execute(
                "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'product_category_%'"
            )
            assert await rows.fetchall() == [(4,)]

    async def test_malformed_page_of_categories_is_rejected(self, shop: ProductShop) -> None:
        foreign = Cursor(("products",), (str,)).token(("a",))
        forged = Cursor(("categories",), (str,)).token(("a\0",))
        bad = [(-1, "", "page_size"), *((0, token, "page_token") for token in ("x", foreign, forged))]
        for size, token, field in bad:
            with refused() as error:
                await self.categories(shop, size, token)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {field})
