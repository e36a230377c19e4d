"""Watchers of orders that note what they see, and what tests do to the tailers behind them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc

from tests.support.eventually import eventually
from tests.support.order import OrderShop, status_name

INSERT = "INSERT INTO order_event (order_id, version, status, create_time) VALUES (%s, %s, %s, now())"


class Watching:
    """A watcher of one order that notes what it sees."""

    def __init__(self, shop: OrderShop, order_id: str, after: int = 0) -> None:
        self.seen: list[tuple[int, str]] = []
        self._stream = shop.stream(order_id, after)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError):  # the service goes away at the end of a test
            async for event in self._stream:
                self.seen.append((event.version, status_name(event)))

    async def until(self, version: int, seconds: float = 5) -> None:
        async def reached() -> bool:
            return bool(self.seen) and self.seen[-1][0] >= version

        await eventually(reached, seconds)

    def check(self) -> None:
        """Each version was seen once and in order."""
        assert [version for version, _ in self.seen] == list(range(1, len(self.seen) + 1))


async def cut_tailers(shop: OrderShop) -> int:
    """Ends the tailers' connections as a failover does; answers how many there were."""
    async with shop.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'order tailer' AND datname = current_database()"
        )
        row = await cursor.fetchone()
        return int(row[0]) if row else 0


async def tailer_pids(shop: OrderShop) -> list[int]:
    """The database's processes that serve tailers."""
    async with shop.connection() as connection:
        cursor = await connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'order tailer' AND datname = current_database()"
        )
        return [row[0] for row in await cursor.fetchall()]


@asynccontextmanager
async def silenced(pid: int) -> AsyncIterator[None]:
    """One of the database's processes answers nothing during the block, although its connection stands."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
