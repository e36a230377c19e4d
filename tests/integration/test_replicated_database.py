"""The pool on a replicated database: servers that hang, poolers that lead to a standby, commits that never end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import grpc
import psycopg
import pytest
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from order.live.tailer import Tailer
from runtime import readiness
from runtime.config import DatabaseConfig
from runtime.database import CUT_MARGIN, Database
from runtime.errors import ApiError
from runtime.readiness import COMMIT_STALL
from runtime.schema import Schema
from runtime.session import WRITE_NOTHING
from runtime.topics import Topics
from tests.support.database import REPOSITORY
from tests.support.eventually import eventually
from tests.support.failover import POOLER
from tests.support.order import FakeStock, create_request, order_shop
from tests.support.pooler import running_pooler
from tests.support.product import euros, product_shop
from tests.support.replication import Replication
from tests.support.runtime_database import Number, opened
from tests.support.watching import Watching

SCHEMA = Schema.load(REPOSITORY / "order" / "migrations")

INSERT = "INSERT INTO kept (n) VALUES (%(n)s) ON CONFLICT DO NOTHING RETURNING n"
COUNT = "SELECT count(*)::int AS n FROM kept"
LOG_POSITION = "SELECT pg_current_wal_lsn()"


@pytest.fixture
async def pg(tmp_path: Path) -> AsyncIterator[Replication]:
    tmp_path.chmod(0o755)
    async with Replication(tmp_path).running() as pg:
        await pg.instances[0].run('CREATE TABLE kept (n int PRIMARY KEY); GRANT ALL ON kept TO "order"', "order")
        yield pg


def database_on(pg: Replication, *, timeout: float = 2, pooler: str = "") -> Database:
    config = DatabaseConfig(conninfo=pg.conninfo("order"), pooler=pooler, pool_size=3, pool_waiting=20, timeout=timeout)
    return Database(config, "test")


async def count_waits(pg: Replication) -> int:
    """Returns how many commits wait for a standby."""
    ((found,),) = await pg.instances[0].run("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return int(found)


@asynccontextmanager
async def pooler_parts(pg: Replication, pooled: bool) -> AsyncIterator[str]:
    """Runs a pooler before the primary, if `pooled`. Yields the parts of the connection string that differ."""
    if not pooled:
        yield ""
        return
    async with running_pooler(pg.conninfo("order"), POOLER) as pooler:
        yield pooler.parts


async def insert(database: Database, n: int) -> list[Number]:
    return await database.fetch("insert", INSERT, {"n": n}, Number)


async def count(database: Database) -> int:
    ((found),) = await database.fetch("count", COUNT, {}, Number)
    return found.n


@pytest.mark.parametrize("pooled", [False, True])
async def test_pool_leaves_cut_off_primary_that_responds(
    pg: Replication, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Service leads to another primary; open connections stay with the old one, whose answers are stale."""
    monkeypatch.setattr(readiness, "SERVER_CHECK_INTERVAL", 0)
    async with pooler_parts(pg, pooled) as parts:
        async with opened(database_on(pg, pooler=parts)) as database:
            assert await database.check(SCHEMA) == ""
            assert await count(database) == 0
            await pg.promote(1)
            await pg.instances[1].run("INSERT INTO kept VALUES (1)", "order")
            assert await count(database) == 0, "nothing tells it yet"
            assert await database.check(SCHEMA) == ""
            assert await count(database) == 1


@pytest.mark.parametrize("pooled", [False, True])
async def test_streams_leave_cut_off_primary_that_responds(
    pg: Replication, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tailer has a direct connection of its own."""
    monkeypatch.setattr(readiness, "SERVER_CHECK_INTERVAL", 0.5)
    async with pooler_parts(pg, pooled) as parts:
        async with order_shop(pg.conninfo("order"), FakeStock(), DATABASE_POOLER_URL=parts) as shop:
            order = await shop.create()
            watching = Watching(shop, order.id)
            await watching.until(1)
            await pg.promote(1)

            async def leads_to_new_primary() -> bool:
                return pg.rw.links_to(pg.instances[0].port) == 0

            await eventually(leads_to_new_primary, 10)
            await shop.move("PROCESSED", order.id)
            await watching.until(2, 10)
            watching.check()


async def test_tailer_leaves_old_primary_that_the_pool_never_met(pg: Replication) -> None:
    """It may have connected just before the pool, and there is no other change of the server after that."""
    async with opened(database_on(pg)) as database:
        tailer = Tailer(pg.conninfo("order"), Topics())
        database.readiness.on_server_check.append(tailer.follow_primary)
        tailing = asyncio.create_task(tailer.run())
        try:
            assert await tailer.check() == ""
            await pg.promote(1)
            assert await database.check(SCHEMA) == ""

            async def has_left() -> bool:
                return pg.rw.links_to(pg.instances[0].port) == 0 and await tailer.check() == ""

            await eventually(has_left)
        finally:
            tailing.cancel()
            await asyncio.gather(tailing, return_exceptions=True)


async def test_new_server_ends_statements_on_the_previous_one(pg: Replication) -> None:
    """They would wait for their whole timeout."""
    async with opened(database_on(pg, timeout=20)) as database:
        assert await database.check(SCHEMA) == ""
        pg.lose(0)
        stuck = [asyncio.create_task(count(database)) for _ in range(3)]
        await pg.promote(1)
        async with asyncio.timeout(18):
            await eventually(lambda: _is_usable(database))
            assert await asyncio.gather(*stuck) == [0, 0, 0]


async def _is_usable(database: Database) -> bool:
    return await database.check(SCHEMA) == ""


async def test_pooler_on_a_standby_is_left(pg: Replication) -> None:
    """Its sessions there are ended, so it makes new ones, which lead to the primary."""
    async with running_pooler(pg.conninfo("order"), POOLER) as pooler:
        async with opened(database_on(pg, pooler=pooler.parts)) as database:
            assert await count(database) == 0
            await asyncio.to_thread(pg.instances[0].stop)
            await pg.promote(1, route=False)
            await pg.rejoin(0)

            async def is_refused() -> bool:
                with pytest.raises(ApiError) as caught:
                    await count(database)
                return caught.value.reason == "DATABASE_READ_ONLY"

            await eventually(is_refused)
            for statement in (WRITE_NOTHING, LOG_POSITION):
                with pytest.raises(ApiError, match="read-only"):  # PostgreSQL has other errors for these
                    await database.execute("function", statement, {})
            assert await database.check(SCHEMA) == "the database is unavailable: the server is a standby"
            pg.route(1)
            await eventually(lambda: _is_usable(database))
            assert await insert(database, 7) == [Number(7)]
            assert await count(database) == 1
            assert pg.rw.links_to(pg.instances[0].port) == 0


async def test_writes_are_refused_while_commits_wait_for_a_standby(pg: Replication) -> None:
    """Each further one would keep a connection of the server, and the locks of its rows."""
    await pg.set_synchronous(True)
    async with opened(database_on(pg, timeout=1)) as database:
        assert await insert(database, 1) == [Number(1)]
        assert await database.check(SCHEMA) == ""
        assert database.readiness.is_writable
        pg.instances[1].freeze()
        stuck = asyncio.create_task(insert(database, 2))
        with pytest.raises(ApiError) as caught:
            await stuck
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE
        assert await database.check(SCHEMA) == "", "reads go on"
        assert database.readiness.is_writable, "the commit may have begun just now"
        await asyncio.sleep(COMMIT_STALL)
        assert await database.check(SCHEMA) == ""
        assert not database.readiness.is_writable
        assert await count(database) == 1, "what no standby has is not visible"
        start = asyncio.get_running_loop().time()
        with pytest.raises(ApiError, match="cannot replicate") as caught:
            await insert(database, 3)
        assert asyncio.get_running_loop().time() - start < 0.5
        assert caught.value.reason == "DATABASE_READ_ONLY"
        assert await count_waits(pg) == 1
        pg.instances[1].thaw()

        async def is_writable() -> bool:
            return await database.check(SCHEMA) == "" and bool(database.readiness.is_writable)

        await eventually(is_writable, 10)
        assert await insert(database, 3) == [Number(3)]
        assert await count(database) == 3


async def test_commit_after_a_wait_for_a_lock_is_no_stall(pg: Replication) -> None:
    """Writes of one product may wait for each other for seconds, and then commit one after the other."""
    await pg.set_synchronous(True)
    async with opened(database_on(pg, timeout=10)) as database:
        assert await insert(database, 1) == [Number(1)]
        async with await psycopg.AsyncConnection.connect(pg.instances[0].conninfo, dbname="order") as other:
            await other.execute("SELECT FROM kept FOR UPDATE")
            writing = asyncio.create_task(database.execute("update", "UPDATE kept SET n = 2", {}))
            await asyncio.sleep(COMMIT_STALL + 0.5)
            pg.instances[1].freeze()
            await other.execute("SET LOCAL synchronous_commit = local")
        await eventually(lambda: count_waits(pg))
        assert await database.check(SCHEMA) == ""
        assert database.readiness.is_writable
        pg.instances[1].thaw()
        await writing


@pytest.mark.parametrize("pooled", [False, True])
async def test_abandoned_commit_does_not_become_visible_alone(pg: Replication, pooled: bool) -> None:
    """Cancelled, it would be visible on the primary only: a retry would acknowledge what a failover loses."""
    await pg.set_synchronous(True)
    async with pooler_parts(pg, pooled) as parts:
        async with opened(database_on(pg, pooler=parts, timeout=1)) as database:
            assert await database.check(SCHEMA) == ""
            pg.instances[1].freeze()
            left = asyncio.create_task(insert(database, 1))
            await asyncio.sleep(0.3)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            await asyncio.sleep(1 + 2 * CUT_MARGIN)
            assert await count(database) == 0
            pg.instances[1].thaw()


async def cancel_waits(pg: Replication) -> None:
    """Ends the waits of commits for a standby, as an administrator may."""

    async def cancelled() -> bool:
        query = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        return bool(await pg.instances[0].run(query))

    await eventually(cancelled)


@pytest.mark.parametrize("pooled", [False, True])
async def test_commit_that_was_not_replicated_is_no_success(pg: Replication, pooled: bool) -> None:
    """PostgreSQL reports success, and a warning."""
    await pg.set_synchronous(True)
    async with pooler_parts(pg, pooled) as parts:
        async with opened(database_on(pg, pooler=parts, timeout=5)) as database:
            pg.instances[1].freeze()
            writing = asyncio.create_task(insert(database, 1))
            await cancel_waits(pg)
            with pytest.raises(ApiError, match="a write was not replicated") as caught:
                await writing
            assert caught.value.code == grpc.StatusCode.UNAVAILABLE
            assert not caught.value.reason, "DATABASE_READ_ONLY would mean that nothing was written"
            pg.instances[1].thaw()
            assert await insert(database, 2) == [Number(2)], "later writes are not affected"


async def test_caller_after_an_abandoned_commit_is_not_affected(pg: Replication) -> None:
    """The commit before its own was not replicated."""
    await pg.set_synchronous(True)
    config = DatabaseConfig(conninfo=pg.conninfo("order"), pool_size=1, pool_waiting=20, timeout=5)
    async with opened(Database(config, "test")) as database:
        assert await database.check(SCHEMA) == ""
        pg.instances[1].freeze()
        left = asyncio.create_task(insert(database, 1))
        await eventually(lambda: count_waits(pg))
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        await cancel_waits(pg)
        assert await count(database) == 1
        pg.instances[1].thaw()


async def test_repeated_order_is_acknowledged_once_it_is_replicated(pg: Replication) -> None:
    """It is visible although no standby has it."""
    await pg.set_synchronous(True)
    async with order_shop(pg.conninfo("order"), FakeStock()) as shop:
        await eventually(lambda: shop.server.ready)
        pg.instances[1].freeze()
        key = str(uuid4())
        placing = asyncio.ensure_future(shop.create(request_id=key))
        await cancel_waits(pg)
        with pytest.raises(grpc.aio.AioRpcError):
            await placing
        with pytest.raises(grpc.aio.AioRpcError):
            await shop.orders.CreateOrder(create_request(request_id=key), timeout=1)
        pg.instances[1].thaw()

        async def is_placed() -> bool:
            with suppress(grpc.aio.AioRpcError):
                return bool(await shop.create(request_id=key))
            return False

        await eventually(is_placed)
        assert len((await shop.orders.ListOrders(order_pb2.ListOrdersRequest())).orders) == 1


@pytest.mark.parametrize("write", ["create", "delete"])
async def test_repeated_write_of_a_product_is_acknowledged_once_it_is_replicated(pg: Replication, write: str) -> None:
    """It is visible although no standby has it."""
    await pg.set_synchronous(True)
    async with product_shop(pg.conninfo("product")) as shop:
        await eventually(lambda: shop.server.ready)
        product = await shop.create("A watch")
        create = product_pb2.CreateProductRequest(
            product=product_pb2.Product(name="A ring", price=euros(5)), request_id=str(uuid4())
        )
        calls: dict[str, Callable[..., Awaitable[product_pb2.Product]]] = {
            "create": partial(shop.products.CreateProduct, create),
            "delete": partial(shop.products.DeleteProduct, product_pb2.DeleteProductRequest(id=product.id)),
        }
        call = calls[write]
        pg.instances[1].freeze()
        writing = asyncio.ensure_future(call())
        await cancel_waits(pg)
        with pytest.raises(grpc.aio.AioRpcError):
            await writing
        with pytest.raises(grpc.aio.AioRpcError):
            await call(timeout=1)
        pg.instances[1].thaw()

        async def is_done() -> bool:
            with suppress(grpc.aio.AioRpcError):
                return bool(await call())
            return False

        await eventually(is_done)
