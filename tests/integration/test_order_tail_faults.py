"""The tailer when its database server goes away: watchers keep their streams and miss nothing."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import psycopg
import pytest

from tests.support.database import FAST, DatabaseServer
from tests.support.eventually import eventually
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop, status_name

OPTIONS = {
    "synchronous_commit": "on",
    # Only commits write down how far the transaction ids have come: what was rolled back is written some time later.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_writer_delay": "10s",
    "autovacuum": "off",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DatabaseServer]:
    """A server of the test's own, to be ended at will."""
    own = DatabaseServer(tmp_path, FAST | OPTIONS)
    with own.running():
        yield own


async def end(server: DatabaseServer, number: signal.Signals) -> None:
    """SIGINT is an orderly end, SIGQUIT one like a crash: nothing is written down any more."""
    os.kill(server.postgres.pid, number)
    await asyncio.to_thread(server.postgres.stop)


async def start(server: DatabaseServer) -> None:
    await asyncio.to_thread(server.postgres.start, server.postgres.port)


async def read(shop: OrderShop, order_id: str, seen: list[tuple[int, str]]) -> None:
    async for event in shop.stream(order_id):
        seen.append((event.version, status_name(event)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
async def test_streams_outlive_a_restart_of_the_database(server: DatabaseServer, number: signal.Signals) -> None:
    """The second way is a crash, after which transaction ids come again that the tailer's snapshot had counted."""
    with server.database("order") as conninfo:
        async with order_shop(conninfo, FakeStock()) as shop:
            orders = [await shop.create() for _ in range(10)]
            seen: list[list[tuple[int, str]]] = [[] for _ in orders]
            watchers = [
                asyncio.create_task(read(shop, order.id, into)) for order, into in zip(orders, seen, strict=True)
            ]

            async def at_version(version: int) -> None:
                async def reached() -> bool:
                    return all(len(each) >= version for each in seen)

                await eventually(reached, 20)

            await at_version(1)
            await eventually(lambda: _told(conninfo), 20)
            async with await psycopg.AsyncConnection.connect(conninfo) as connection:
                for _ in range(40):
                    await connection.execute("SELECT pg_current_xact_id()")
                    await connection.rollback()
            await asyncio.sleep(1.2)  # the tailer looks, and from here on its cursor is past these ids
            counted = await _next_xid(conninfo)
            await end(server, number)
            await asyncio.sleep(1.5)
            assert shop.server.ready, "a blip flips no readiness"
            await start(server)
            if number == signal.SIGQUIT:
                assert await _next_xid(conninfo) < counted, "ids come again"
            for version, step in enumerate(PATHS["RECEIVED"], start=2):
                await asyncio.gather(*(_move(shop, step, order.id) for order in orders))
                await at_version(version)
            await asyncio.gather(*watchers)
            expected = [(n, status) for n, status in enumerate(["PLACED", *PATHS["RECEIVED"]], start=1)]
            assert seen == [expected] * len(orders)


async def _told(conninfo: str) -> bool:
    """The relay has nothing left to do: it commits nothing of its own, which would keep the ids from coming again."""
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        return await (await connection.execute("SELECT FROM outbox")).fetchone() is None


async def _next_xid(conninfo: str) -> int:
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        row = await (await connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")).fetchone()
        assert row
        return int(row[0])


async def _move(shop: OrderShop, step: str, order_id: str) -> None:
    """Until the service has its database again."""

    async def moved() -> bool:
        try:
            await shop.move(step, order_id)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    await eventually(moved, 20)
