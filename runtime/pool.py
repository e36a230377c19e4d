"""The connections of a service to its PostgreSQL: a small fixed pool, and a bounded queue in front of it.

The queue exists because of a quirk of psycopg_pool: it keeps timed-out waiters in its own queue, and does not reconnect
while that queue is full, so it would never recover from an outage. We queue in front of it instead.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import LiteralString

from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from runtime.config import DatabaseConfig
from runtime.connection import Connection, cut_after
from runtime.credentials import ConnectionInfo
from runtime.errors import ApiError, database_unavailable, queue_full, unavailable

OUTAGE_ACQUIRE_TIMEOUT = 1.0
"""Seconds that a call waits for a connection while the database is known to be down. Callers retry, and the edge
retries for its clients, so these waits add up: calls must not pile up."""

RECONNECT_TIMEOUT = 2.0
"""Seconds for which the driver's pool tries to replace a lost connection by itself. After them each call and each
readiness check tries again. The pool alone would double its pauses, and notice a recovered database minutes late."""

MAX_CONNECTION_LIFETIME = 6 * 3600.0
"""Seconds after which a connection is replaced, less a random part of up to a twentieth. For a minute or so after the
password was rotated, no new connection can be made, because the new password has not reached this process yet. Because
connections live so long, hardly any of them ends in such a minute."""

CLOSE_TIMEOUT = 5.0
"""Seconds that closing the driver's pool may take."""

RECYCLE_INTERVAL = 60.0
"""Seconds for which a connection is kept between calls, before the driver's pool gets it back and may replace it."""

MIN_TIMEOUT = 0.01
"""Seconds that a call waits for a connection at least."""

_SET_IN_SESSION: LiteralString = """
    SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given (name, value)
    """

SET_IN_TRANSACTION: LiteralString = """
    SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS given (name, value)
    """

Settings = tuple[list[str], list[str]]
"""Names and values of settings of PostgreSQL."""


class Pool:
    """A fixed number of connections, for which a bounded number of callers wait for a bounded time.

    The driver's pool makes and replaces connections. Between calls they stay here: fetching one from the driver's pool,
    and returning it, costs as much as a small statement.
    """

    def __init__(self, config: DatabaseConfig, application: str, settings: Mapping[str, str]) -> None:
        """Prepares the pool; it connects when it is opened.

        Args:
            config: Where the database is, and how many connections and waiting calls there may be.
            application: The name that PostgreSQL shows for the connections.
            settings: Settings of PostgreSQL for every statement, by name.

        Raises:
            ConfigError: A connection string is malformed, or the folder of credentials is missing.
        """
        self.timeout = config.timeout
        self.conninfo = ConnectionInfo(config, application, through_pooler=True)
        self.is_down = False
        """Whether the database is known to be unavailable."""
        self.statement_settings: Settings | None = None
        """What to set in each transaction, if there is a pooler. A pooler gives the connection of one transaction to
        another client for the next one, which then has neither our settings nor our prepared statements."""
        self._settings = (list(settings), list(settings.values()))
        if config.pooler:
            self.statement_settings = self._settings
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self.conninfo,
            connection_class=Connection,
            open=False,
            min_size=config.pool_size,
            max_size=config.pool_size,
            timeout=config.timeout,
            reconnect_timeout=RECONNECT_TIMEOUT,
            max_lifetime=MAX_CONNECTION_LIFETIME,
            kwargs={"autocommit": True, "prepare_threshold": None if config.pooler else 0},
            configure=None if config.pooler else self._configure,
            name=application,
        )
        self._idle: list[Connection] = []
        """Connections that no call uses. The one used last is the first to be used again."""
        self._free_places = config.pool_size
        self._queue: deque[asyncio.Future[None]] = deque()
        self._max_waiting = config.pool_waiting
        self._generation = 0
        self._replace_time = 0.0
        """When all connections were replaced last, by the clock of the event loop."""
        self._replacements: set[asyncio.Task[None]] = set()
        self._returns: set[asyncio.Task[None]] = set()

    async def _configure(self, connection: Connection) -> None:
        with cut_after(connection, self.timeout):
            await connection.execute(_SET_IN_SESSION, self._settings)

    async def open(self) -> None:
        """Starts connecting; does not wait for the database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Closes all connections, those in use as soon as they are given back."""
        self._generation += 1  # connections still in use are not kept afterwards
        idle, self._idle = self._idle, []
        await asyncio.gather(*map(self._pool.putconn, idle), return_exceptions=True)
        while background := [*self._replacements, *self._returns]:
            await asyncio.wait(background)
        await self._pool.close(timeout=CLOSE_TIMEOUT)

    async def acquire(self, timeout: float) -> Connection:
        """Returns a connection, which has to be released.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            ApiError: UNAVAILABLE if the database does not respond or the pool is closed; RESOURCE_EXHAUSTED if too many
                calls wait already, or if those before this one took too long.
        """
        if self._free_places and self._idle:
            self._free_places -= 1
            return self._idle.pop()
        clock = asyncio.get_running_loop().time
        deadline = clock() + max(min(timeout, OUTAGE_ACQUIRE_TIMEOUT) if self.is_down else timeout, MIN_TIMEOUT)
        if self._free_places:
            self._free_places -= 1
        else:
            self.check_queue()
            await self._wait_for_place(deadline)
        if self._idle:
            return self._idle.pop()
        try:
            connection = await self._pool.getconn(max(deadline - clock(), MIN_TIMEOUT))
        except BaseException as error:
            self._free_place()
            if isinstance(error, PoolTimeout):
                raise database_unavailable() from None
            if isinstance(error, PoolClosed):
                raise unavailable("the server is shutting down") from None
            raise
        connection.generation = self._generation
        connection.recycle_time = clock() + RECYCLE_INTERVAL
        return connection

    async def _wait_for_place(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._queue.append(place)
        timer = loop.call_at(deadline, self._expire, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):
                    self._queue.remove(place)
            elif not place.exception():
                self._free_place()  # the place was assigned in the same moment
            raise
        finally:
            timer.cancel()

    def _expire(self, place: "asyncio.Future[None]") -> None:
        if not place.done():
            self._queue.remove(place)
            place.set_exception(self._queue_timeout())

    def _free_place(self) -> None:
        """Gives a place to the next caller in the queue, or keeps it free if there is none."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free_places += 1

    def release(self, connection: Connection) -> None:
        """Takes a connection back. It is kept if it is usable; otherwise the driver's pool replaces it."""
        if (
            connection.pgconn.transaction_status == TransactionStatus.IDLE
            and connection.generation == self._generation
            and connection.recycle_time > asyncio.get_running_loop().time()
        ):
            self._idle.append(connection)
            self._free_place()
            return
        self._start(self._return_to_driver(connection), self._returns)

    def release_abandoned(self, connection: Connection, timeout: float, cut_timer: asyncio.TimerHandle) -> None:
        """Takes a connection back once its abandoned statement has ended.

        Args:
            connection: The connection.
            timeout: Seconds after which the statement is cancelled in the database.
            cut_timer: The timer that cuts the connection; it is cancelled when the statement has ended.
        """
        self._start(self._release_when_finished(connection, timeout, cut_timer), self._returns)

    async def _release_when_finished(
        self, connection: Connection, timeout: float, cut_timer: asyncio.TimerHandle
    ) -> None:
        try:
            await connection.finish_abandoned(timeout)
        finally:
            cut_timer.cancel()
            self.release(connection)

    @staticmethod
    def _start(work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _return_to_driver(self, connection: Connection) -> None:
        try:
            await self._pool.putconn(connection)
        finally:
            self._free_place()

    def check_queue(self) -> None:
        """Checks that one more call may wait for a connection.

        Raises:
            ApiError: RESOURCE_EXHAUSTED if the queue is full.
        """
        if not self._free_places and len(self._queue) >= self._max_waiting:
            raise queue_full()

    def _queue_timeout(self) -> ApiError:
        """Returns why the queue did not move: the callers before wait for a connection as well, or they are slow."""
        if self.waits_for_database():
            return database_unavailable()
        # Not UNAVAILABLE: the edge would retry the call, and so add to the overload.
        return queue_full()

    def waits_for_database(self) -> bool:
        """Returns whether a call waits for a connection to be made."""
        return bool(self._pool.get_stats().get("requests_waiting"))

    def replace_all(self, use_time: float) -> None:
        """Replaces all connections after one was lost, so that the others do not fail a call each.

        Does nothing if they have been replaced since.

        Args:
            use_time: When the use of the lost connection began, by the clock of the event loop.
        """
        if use_time > self._replace_time:
            self._replace_time = asyncio.get_running_loop().time()
            self._generation += 1
            idle, self._idle = self._idle, []
            self._start(self._replace(idle), self._replacements)

    async def _replace(self, idle: Sequence[Connection]) -> None:
        await self._pool.drain()
        for connection in idle:
            await self._pool.putconn(connection)

    async def wait_until_replaced(self) -> None:
        """Waits until `acquire` returns only connections made after the last `replace_all`."""
        if self._replacements:
            await asyncio.wait(self._replacements)
