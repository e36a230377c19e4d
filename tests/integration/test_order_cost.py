"""The statements that a call runs, by the counters of the databases."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.invariants_order import settled
from tests.support.order import OrderShop, order_shop
from tests.support.product import ProductShop, product_shop

BACKGROUND = (
    *("outbox", "schema_migration", "pg_current_snapshot", "LISTEN", "NOTIFY", "set_config", "order_event AS e"),
    *("expire_time < now()", "database_identity", "pg_is_in_recovery", "pg_postmaster_start_time"),
)
"""Parts of the statements of background jobs."""

OWN = ("WITH placed", "WITH given")
"""Parts of the statements of calls that also write to the outbox."""


class Counters:
    """The counters of pg_stat_statements for both services."""

    def __init__(self, conninfo: str, order: str, product: str) -> None:
        self._conninfo = conninfo
        self._names = {
            name: str(conninfo_to_dict(each)["dbname"]) for name, each in (("order", order), ("product", product))
        }

    def read(self, service: str) -> Counter[str]:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            rows = connection.execute(
                "SELECT query, calls FROM pg_stat_statements JOIN pg_database AS d ON d.oid = dbid"
                " WHERE datname = %s AND toplevel",
                (self._names[service],),
            ).fetchall()
        calls: Counter[str] = Counter()
        for query, number in rows:
            if any(word in query for word in OWN) or not any(word in query for word in BACKGROUND):
                calls[_kind(query)] += number
        return calls


def _kind(query: str) -> str:
    words = query.split()
    return " ".join(words[:2])


@pytest.fixture
async def products(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


@pytest.fixture
async def shop(order_database: str, products: ProductShop) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, products.address) as shop:
        yield shop


async def still(shop: OrderShop, products: ProductShop) -> bool:
    async with shop.connection() as orders, products.connection() as stock:
        return await settled(orders, stock)


async def test_create_runs_one_statement_and_replay_two(
    postgres: DatabaseServer, shop: OrderShop, products: ProductShop
) -> None:
    """Without BEGIN and COMMIT: each statement is one round trip. The relay's statements are not counted."""
    product = await products.create(stock=100)
    counters = Counters(postgres.postgres.conninfo("postgres"), shop.conninfo, products.conninfo)

    async def spent(number: int, key: str) -> tuple[Counter[str], Counter[str]]:
        before = {name: counters.read(name) for name in ("order", "product")}
        for _ in range(number):
            await shop.create({product.id: 1}, request_id=key or str(uuid4()))
        after = {name: counters.read(name) for name in ("order", "product")}
        return after["order"] - before["order"], after["product"] - before["product"]

    in_order, in_product = await spent(10, "")
    in_product.pop("WITH held", None)  # the relay confirms
    assert in_order == {"WITH placed": 10}
    assert in_product == {"WITH requested": 10}

    key = str(uuid4())
    await shop.create({product.id: 1}, request_id=key)
    await asyncio.sleep(0.1)
    await eventually(lambda: still(shop, products))
    in_order, in_product = await spent(1, key)
    assert in_order == {"WITH placed": 1, "SELECT id,": 1}
    assert in_product == {"WITH requested": 1, "SELECT id,": 1}


async def test_concurrent_calls_share_statements(
    postgres: DatabaseServer, shop: OrderShop, products: ProductShop
) -> None:
    """Calls that wait for a statement are one statement afterwards."""
    product = await products.create(stock=1_000)
    counters = Counters(postgres.postgres.conninfo("postgres"), shop.conninfo, products.conninfo)
    before = {name: counters.read(name) for name in ("order", "product")}
    orders = await asyncio.gather(*(shop.create({product.id: 1}) for _ in range(100)))
    await asyncio.gather(*(shop.get(each.id) for each in orders))
    await asyncio.gather(*(shop.move("PROCESSED", each.id) for each in orders))
    await asyncio.gather(*(products.get(product.id) for _ in orders))
    in_order = counters.read("order") - before["order"]
    assert set(in_order) == {"WITH placed", "SELECT id,", "WITH given"}
    assert max(in_order.values()) <= 50
    assert (counters.read("product") - before["product"])["SELECT id,"] <= 50
    await eventually(lambda: still(shop, products))
