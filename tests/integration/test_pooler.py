"""The services behind a pooler in transaction mode: each statement may run on another connection of the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import grpc
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from product.app import MIGRATIONS
from runtime.config import DatabaseConfig
from runtime.database import ConstraintViolation, Database
from runtime.errors import ApiError
from runtime.schema import Schema
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.order import OrderShop, order_shop
from tests.support.pooler import SERVER_CONNECTIONS, pooling, running_pooler
from tests.support.product import ProductShop, product_shop, refused
from tests.support.runtime_database import opened

CALLS = 40


@asynccontextmanager
async def pooled(products: str, orders: str) -> AsyncIterator[tuple[ProductShop, OrderShop]]:
    """Both services, each behind a pooler. The tailer and jobs that need a session bypass it."""
    async with (
        pooling(products) as to_products,
        pooling(orders) as to_orders,
        product_shop(products, DATABASE_POOLER_URL=to_products) as product,
        order_shop(orders, product.address, DATABASE_POOLER_URL=to_orders) as order,
    ):
        yield product, order


async def test_calls_share_the_connections_of_a_pooler(product_database: str, order_database: str) -> None:
    async with pooled(product_database, order_database) as (products, orders):
        product = await products.create("Steel watch", stock=CALLS)

        async def one(number: int) -> str:
            await products.products.ListProducts(product_pb2.ListProductsRequest(search="watch" if number % 2 else ""))
            order = await orders.create({product.id: 1}, request_id=str(uuid4()))
            assert await orders.get(order.id) == order
            return order.id

        ids = await asyncio.gather(*(one(number) for number in range(CALLS)))
        assert len(set(ids)) == CALLS
        with refused() as error:
            await orders.create({product.id: 1})
        assert error.what.reason == "INSUFFICIENT_STOCK"
        assert len((await orders.orders.ListOrders(order_pb2.ListOrdersRequest(page_size=100))).orders) == CALLS
        async with products.connection() as connection:
            rows = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            (connections,) = await rows.fetchone() or (0,)
        assert connections <= SERVER_CONNECTIONS, "all belong to the pooler"


async def test_tailer_bypasses_the_pooler(product_database: str, order_database: str) -> None:
    async with pooled(product_database, order_database) as (products, orders):
        product = await products.create("Steel watch")
        order = await orders.create({product.id: 1})
        stream = orders.stream(order.id)
        assert (await stream.read()).version == 1
        await orders.move("PROCESSED", order.id)
        async with asyncio.timeout(5):
            assert (await stream.read()).version == 2
        stream.cancel()


@dataclass(frozen=True)
class Setting:
    value: str


async def test_settings_hold_for_one_statement(product_database: str) -> None:
    setting = "SELECT current_setting(%(name)s) AS value"
    async with pooling(product_database) as pooler:
        config = DatabaseConfig(conninfo=product_database, pooler=pooler, pool_size=4, pool_waiting=4, timeout=0.5)
        database = Database(config, "test", {"max_parallel_workers_per_gather": "0"})
        await database.open()
        for name, value in (("statement_timeout", "500ms"), ("max_parallel_workers_per_gather", "0")):
            assert await database.fetch("setting", setting, {"name": name}, Setting) == [Setting(value)]
        with pytest.raises(ApiError) as caught:
            await database.fetch("sleep", "SELECT 'x' AS value FROM pg_sleep(5)", {}, Setting)
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(ConstraintViolation, match="reservation_state"):
            await database.fetch(
                "insert",
                "INSERT INTO reservation (id, state, items, expire_time) VALUES (gen_random_uuid(), 'X', '[]', now())",
                {},
                Setting,
            )
        await database.close()
        whole = make_conninfo(product_database, **conninfo_to_dict(pooler))
        async with await psycopg.AsyncConnection.connect(whole, autocommit=True, prepare_threshold=None) as other:
            for _ in range(SERVER_CONNECTIONS):
                rows = await other.execute("SELECT current_setting('statement_timeout')")
                assert await rows.fetchone() == ("0",), "other clients of the pooler do not get our settings"


async def test_busy_pooler_is_no_outage(product_database: str) -> None:
    """Its queue is ours: the pods stay ready, and calls that wait too long are refused in a way that nobody retries."""
    async with running_pooler(product_database, {"query_wait_timeout": "2"}) as pooler, AsyncExitStack() as stack:
        config = DatabaseConfig(conninfo=product_database, pooler=pooler.parts, pool_size=8, pool_waiting=8, timeout=2)
        database = await stack.enter_async_context(opened(Database(config, "test")))
        schema = Schema.load(MIGRATIONS)
        assert await database.check(schema) == ""
        busy = []
        for _ in range(SERVER_CONNECTIONS):
            connect = psycopg.AsyncConnection.connect(pooler.conninfo, autocommit=True, prepare_threshold=None)
            other = await stack.enter_async_context(await connect)
            busy.append(asyncio.create_task(other.execute("SELECT pg_sleep(4)")))
        await asyncio.sleep(0.2)
        calls = [database.fetch("one", "SELECT 'x' AS value", {}, Setting) for _ in range(3)]
        waiting = asyncio.gather(*calls, return_exceptions=True)
        assert await database.check(schema) == ""
        assert database.readiness.is_up
        for refusal in await waiting:
            assert isinstance(refusal, ApiError)
            assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        await asyncio.gather(*busy)
        assert await database.fetch("one", "SELECT 'x' AS value", {}, Setting) == [Setting("x")]


async def test_pooler_without_a_database_is_an_outage(postgres: DatabaseServer, product_database: str) -> None:
    """It still takes clients."""
    async with running_pooler(product_database, {"query_wait_timeout": "2"}) as pooler:
        config = DatabaseConfig(conninfo=product_database, pooler=pooler.parts, pool_size=8, pool_waiting=8, timeout=2)
        async with opened(Database(config, "test")) as database:
            schema = Schema.load(MIGRATIONS)
            assert await database.check(schema) == ""
            with postgres.shut(product_database):
                assert (await database.check(schema)).startswith("the database is unavailable: ")
                assert not database.readiness.is_up
                with pytest.raises(ApiError) as caught:
                    await database.fetch("one", "SELECT 'x' AS value", {}, Setting)
                assert caught.value.code == grpc.StatusCode.UNAVAILABLE


async def test_cancelled_call_ends_its_statement_via_pooler(product_database: str) -> None:
    async with pooling(product_database) as pooler:
        config = DatabaseConfig(conninfo=product_database, pooler=pooler, pool_size=2, pool_waiting=4, timeout=5)
        database = Database(config, "test")
        await database.open()
        call = asyncio.create_task(database.fetch("sleep", "SELECT 'x' AS value FROM pg_sleep(4)", {}, Setting))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        async def gone() -> bool:
            async with await psycopg.AsyncConnection.connect(product_database) as connection:
                rows = await connection.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
                    " AND pid <> pg_backend_pid()"
                )
                return await rows.fetchone() is None

        await eventually(gone, 2)
        assert await database.fetch("one", "SELECT 'x' AS value", {}, Setting) == [Setting("x")]
        await database.close()
