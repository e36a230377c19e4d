"""The tailer when another server takes over, and on a server that a dump was loaded into."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.database import FAST, REPOSITORY, DatabaseServer, run_apart
from tests.support.eventually import eventually
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop
from tests.support.standby import Standby, tool
from tests.support.watching import Watching


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DatabaseServer]:
    # What is committed is on its way to a standby.
    own = DatabaseServer(tmp_path, FAST | {"synchronous_commit": "on"})
    with own.running():
        yield own


async def moved(shop: OrderShop, step: str, order_id: str) -> None:
    """Until the service has found its database."""

    async def done() -> bool:
        try:
            await shop.move(step, order_id)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise
            return False
        return True

    await eventually(done, 20)


async def test_streams_go_on_when_a_standby_takes_over(server: DatabaseServer) -> None:
    """Of two addresses the service finds the primary, also where the standby comes first; then the new primary."""
    standby = Standby(server.postgres)
    conninfo = server.postgres.service("order")
    run_apart(conninfo, REPOSITORY / "order" / "migrations")
    with standby.running():
        await standby.answers()
        both = make_conninfo(conninfo, host="127.0.0.1,127.0.0.1", port=f"{standby.port},{server.postgres.port}")
        async with order_shop(both, FakeStock()) as shop:
            orders = [await shop.create() for _ in range(10)]
            watchers = [Watching(shop, order.id) for order in orders]
            for watching in watchers:
                await watching.until(1)
            await standby.promote()
            for version, step in enumerate(PATHS["RECEIVED"], start=2):
                await asyncio.gather(*(moved(shop, step, order.id) for order in orders))
                for watching in watchers:
                    await watching.until(version, 10)
            for watching in watchers:
                watching.check()
            assert shop.server.ready, "a failover flips no readiness"


async def test_dump_loaded_into_new_server_repeats_no_event(
    postgres: DatabaseServer, order_database: str, server: DatabaseServer
) -> None:
    """Its rows have transaction ids that the new server has not come to yet."""
    async with order_shop(order_database, FakeStock()) as shop:
        async with shop.connection() as connection:
            await connection.execute(
                "DO 'BEGIN FOR n IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'"
            )
        orders = [await shop.create() for _ in range(5)]
        for order in orders:
            await shop.move("PROCESSED", order.id)
    dump = tool(postgres.postgres, "pg_dump", "--no-owner", "--no-privileges", "-d", order_database)
    restored = server.postgres.service("order")
    tool(server.postgres, "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", restored, stdin=dump)
    assert await of_the_future(restored) == 2 * len(orders)
    async with order_shop(restored, FakeStock()) as shop:
        watchers = [Watching(shop, order.id) for order in orders]
        for watching in watchers:
            await watching.until(2)
        for version, step in enumerate(["DELIVERED", "RECEIVED"], start=3):
            for order in orders:
                await shop.move(step, order.id)
            for watching in watchers:
                await watching.until(version)
        for watching in watchers:
            watching.check()
    assert await of_the_future(restored) == 0, "or each look would read them again until then"


async def of_the_future(conninfo: str) -> int:
    """How many events have a transaction id that is still to come."""
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        query = "SELECT count(*) FROM order_event WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
        row = await (await connection.execute(query)).fetchone()
        assert row
        return int(row[0])
