"""The connections of a service to its PostgreSQL: a small fixed pool, and a bounded queue before it."""

import asyncio
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from runtime.config import DatabaseConfig
from runtime.credentials import ConnectionInfo
from runtime.errors import ApiError, resource_exhausted, unavailable

log = logging.getLogger(__name__)

AWAY = 1.0
"""Seconds that a call waits for a connection while the database is known to be away. Callers try again, and the edge
for its clients too: what each waits adds up, and they must not pile up."""

RECONNECT = 2.0
"""Seconds for which a lost connection is replaced by itself. After them each call, and each look at the readiness,
tries anew: the pool's own attempts would be twice as far apart each time, and find a database minutes late."""

LIFETIME = 6 * 3600.0
"""Seconds after which a connection is replaced, less up to a twentieth by chance. Its successor cannot be had while a
rotated password has not come to us yet, for a minute or so: with so long a life hardly one ends in such a minute."""

_SET_IN_SESSION: LiteralString = """
    SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given (name, value)
    """

SET_IN_TRANSACTION: LiteralString = """
    SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS given (name, value)
    """

Connection = AsyncConnection[Any]


@contextmanager
def answering(connection: Connection, seconds: float) -> Iterator[None]:
    """Cuts the connection if the block takes longer: it fails with an OperationalError then.

    Where the other end is gone without a word, a statement waits for ever. To cancel it is no way out: the driver has
    the server end it first, over the same dead path.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        log.warning("the database does not answer: cutting the connection")
        end.shutdown(socket.SHUT_RDWR)


class Pool:
    """Connections that have to be given back. Whoever waits for one does so for a bounded time."""

    def __init__(self, config: DatabaseConfig, application: str, settings: Mapping[str, str]) -> None:
        """`settings` are PostgreSQL's, by name, for each statement."""
        self.timeout = config.timeout
        self.conninfo = ConnectionInfo(config, application, through_pooler=True)
        self.away = False
        """Whether the database is known not to answer."""
        self.statement_settings: tuple[list[str], list[str]] | None = None
        """Names and values of what has to be set in each transaction. A pooler gives the connection of one transaction
        to somebody else for the next: neither settings nor prepared statements are still there."""
        self._settings = (list(settings), list(settings.values()))
        if config.pooler:
            self.statement_settings = self._settings
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self.conninfo,
            open=False,
            min_size=config.pool_size,
            max_size=config.pool_size,
            timeout=config.timeout,
            reconnect_timeout=RECONNECT,
            max_lifetime=LIFETIME,
            kwargs={"autocommit": True, "prepare_threshold": None if config.pooler else 0},
            configure=None if config.pooler else self._configure,
            name=application,
        )
        # The queue stands before the pool: in the pool's own, those who have left keep their places until a connection
        # comes, and while it is full nobody has it try for one. A database that was away would never be found again.
        self._slots = asyncio.Semaphore(config.pool_size)
        self._max_waiting = config.pool_waiting
        self._waiting = 0
        self._renewed = 0.0
        self._renewals: set[asyncio.Task[None]] = set()

    async def _configure(self, connection: Connection) -> None:
        with answering(connection, self.timeout):
            await connection.execute(_SET_IN_SESSION, self._settings)

    async def open(self) -> None:
        """Starts to connect; does not wait for the database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await asyncio.gather(*self._renewals, return_exceptions=True)
        await self._pool.close(timeout=5)

    async def take(self, timeout: float) -> Connection:
        """Returns a connection, which has to be given back. `timeout` is in seconds."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + max(min(timeout, AWAY) if self.away else timeout, 0.01)
        if self._slots.locked():
            self.check_queue()
            self._waiting += 1
            try:
                async with asyncio.timeout_at(deadline):
                    await self._slots.acquire()
            except TimeoutError:
                raise self._queue_timeout() from None
            finally:
                self._waiting -= 1
        else:
            await self._slots.acquire()
        try:
            return await self._pool.getconn(max(deadline - clock(), 0.01))
        except BaseException as error:
            self._slots.release()
            if isinstance(error, PoolTimeout):
                raise unavailable("the database does not answer") from None
            if isinstance(error, PoolClosed):
                raise unavailable("the server is shutting down") from None
            raise

    async def give_back(self, connection: Connection) -> None:
        try:
            await self._pool.putconn(connection)
        finally:
            self._slots.release()

    def check_queue(self) -> None:
        """Raises RESOURCE_EXHAUSTED where nobody else may wait."""
        if self._slots.locked() and self._waiting >= self._max_waiting:
            raise resource_exhausted("too many calls are waiting")

    def _queue_timeout(self) -> ApiError:
        """Why the queue did not move: those before wait for a connection too, or they have one and are slow."""
        if self.starves():
            return unavailable("the database does not answer")
        # Not UNAVAILABLE: the edge would repeat it, and so add to what there is too much of.
        return resource_exhausted("too many calls are waiting")

    def starves(self) -> bool:
        """Returns whether somebody whose turn it is waits for a connection to be made."""
        return bool(self._pool.get_stats().get("requests_waiting"))

    def renew(self, began: float) -> None:
        """Has all connections replaced after one was lost, rather than let each fail a call; once, for those that were
        in use from before."""
        if began > self._renewed:
            self._renewed = asyncio.get_running_loop().time()
            task = asyncio.create_task(self._pool.drain())
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)

    async def renewed(self) -> None:
        """Waits until no connection from before the last `renew` can be taken."""
        if self._renewals:
            await asyncio.wait(self._renewals)
