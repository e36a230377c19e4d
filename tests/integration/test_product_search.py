"""What a search costs: its plan, its time, its connections. It does not delay other calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest
from shop.product.v1 import product_pb2

from product.listing import ProductQuery
from product.store import ProductStore
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.catalogue import NOWHERE, fill, searching, slowest
from tests.support.order import order_shop
from tests.support.product import product_shop, refused


@dataclass(frozen=True)
class Plans:
    """How often prepared statements had a plan for any parameters (generic), and one for their own (custom)."""

    generic: int
    custom: int


async def plans(database: Database, part: str) -> Plans:
    """Counts the plans of the prepared statements that contain `part`, on the one connection of a pool."""
    query = """
        SELECT coalesce(sum(generic_plans), 0)::int AS generic, coalesce(sum(custom_plans), 0)::int AS custom
        FROM pg_prepared_statements WHERE strpos(statement, %(part)s) > 0 AND strpos(statement, 'pg_prepared') = 0
        """
    found = await database.fetch_one("plans", query, {"part": part}, Plans)
    assert found
    return found


@asynccontextmanager
async def pool_of_one(conninfo: str) -> AsyncIterator[Database]:
    database = Database(DatabaseConfig(conninfo=conninfo, pool_size=1, pool_waiting=5, timeout=5), "test")
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def test_filtered_lists_get_no_generic_plan(product_database: str) -> None:
    """PostgreSQL changes to a generic plan after five runs on a connection.

    For a word without trigrams that plan is many times slower: it reads the whole index, and then every row. A list
    without filters stays prepared.
    """
    await fill(product_database, 2_000)
    async with pool_of_one(product_database) as database:
        store = ProductStore(database, database)
        for _ in range(8):
            assert len(await store.list(ProductQuery(search="watch"), None, 21)) == 21
            assert not await store.list(ProductQuery(search=NOWHERE), None, 21)
            assert not await store.list(ProductQuery(category="nowhere"), None, 21)
            assert len(await store.list(ProductQuery(), None, 21)) == 21
        assert await plans(database, "LIKE") == Plans(0, 0)
        assert await plans(database, "category = ") == Plans(0, 0)
        kept = await plans(database, "ORDER BY create_time DESC, id DESC")
        assert kept.generic + kept.custom == 8


async def test_common_and_rare_word_use_the_trigram_index(product_database: str) -> None:
    """Whichever of the two is longer."""
    await fill(product_database, 5_000)
    async with product_shop(product_database) as shop:
        needle = await shop.create("A needle for her watch")
        for search in ("watch needle", "steel needle zq", "for needle", "needle"):
            response = await shop.products.ListProducts(product_pb2.ListProductsRequest(search=search))
            assert [each.id for each in response.products] == ([] if NOWHERE in search else [needle.id])
    async with await psycopg.AsyncConnection.connect(product_database) as connection:
        rows = await connection.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'product_search_idx'"
        )
        assert await rows.fetchone() == (4,)


async def test_too_many_words_are_rejected(product_database: str) -> None:
    async with product_shop(product_database) as shop:
        ten = " ".join(f"w{n}" for n in range(10))
        await shop.products.ListProducts(product_pb2.ListProductsRequest(search=f"{ten} w0 w1"))
        with refused() as error:
            await shop.products.ListProducts(product_pb2.ListProductsRequest(search=f"{ten} w10"))
        assert error.code == "INVALID_ARGUMENT"
        assert error.fields == {"search": "must have at most 10 different words, not 11"}


async def test_search_timeout_says_what_to_do(product_database: str) -> None:
    """The list does not look empty, and the error does not ask to retry."""
    async with product_shop(product_database, SEARCH_TIMEOUT="0.3") as shop:
        await fill(product_database, 10)
        async with await psycopg.AsyncConnection.connect(product_database) as other:
            await other.execute("LOCK TABLE product")
            with refused() as error:
                await shop.products.ListProducts(product_pb2.ListProductsRequest(search="watch"))
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "QUERY_TIMEOUT")
        assert error.message == "the search took too long; use longer or rarer words"
        assert error.retry_after is None


@pytest.mark.timeout(120)
async def test_searches_do_not_delay_other_calls(product_database: str, order_database: str) -> None:
    """A hundred clients send searches for which the database reads every product.

    Orders and other reads wait for the shared processors at most.
    """
    await fill(product_database, 20_000)
    async with product_shop(product_database) as products, order_shop(order_database, products.address) as orders:
        product = await products.create("Mug", stock=1_000)

        async def browse() -> None:
            await products.get(product.id)
            await products.products.ListProducts(product_pb2.ListProductsRequest())
            await products.products.ListProducts(product_pb2.ListProductsRequest(category="C3", order_by="price"))

        async with searching(products.address, 100) as codes:
            while not codes:
                await asyncio.sleep(0.05)
            order = await slowest(lambda: orders.create({product.id: 1}), 10)
            reads = await slowest(browse, 5)
            assert order < 1
            assert reads < 1.5
            assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
