"""The connections of a service to its PostgreSQL: a small fixed pool, and a bounded queue in front of it.

The queue exists because of a quirk of psycopg_pool: it keeps timed-out waiters in its own queue, and does not reconnect
while that queue is full, so it would never recover from an outage. We queue in front of it instead.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress

from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from runtime.config import DatabaseConfig
from runtime.connection import Connection, cut, cut_after
from runtime.credentials import ConnectionInfo
from runtime.errors import ApiError, database_unavailable, queue_full, unavailable
from runtime.session import SET_IN_SESSION, Settings

log = logging.getLogger(__name__)

OUTAGE_ACQUIRE_TIMEOUT = 1.0
"""Seconds that a call waits for a connection while the database is known to be down. Callers retry, and the edge
retries for its clients, so these waits add up: calls must not pile up."""

RECONNECT_TIMEOUT = 2.0
"""Seconds for which the driver's pool tries to replace a lost connection by itself. After them each call and each
readiness check tries again. The pool alone would double its pauses, and notice a recovered database minutes late."""

CONNECTING = 2
"""Connections that a pool makes at the same time. A server that starts is not to be flooded."""

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
        self.name = application
        self.size = config.pool_size
        self.timeout = config.timeout
        self.conninfo = ConnectionInfo(config, application, through_pooler=True)
        self.direct_conninfo = ConnectionInfo(config, application)  # past the pooler, if there is one
        self._to_replicas = bool(config.replicas)
        self.is_down = False
        """Whether the database is known to be unavailable."""
        self._settings: Settings = (list(settings), list(settings.values()))
        self.statement_settings = self._settings if config.pooler else None
        """What to set in each transaction, if there is a pooler. A pooler gives the connection of one transaction to
        another client for the next one, which then has neither our settings nor our prepared statements."""
        self.timeouts = 0
        """How many calls got no connection in time, or found the queue full."""
        self.on_wait: Callable[[float], object] = lambda seconds: None
        """Is told how long a call has waited for a connection, if it had to."""
        self.server = ""
        """Which run of which server new connections to the database itself lead to; empty before the first one."""
        self.on_new_server: list[Callable[[str], object]] = []
        """Are told when that changes."""
        self._closing = asyncio.Event()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self.conninfo,
            connection_class=Connection,
            open=False,
            min_size=config.pool_size,
            max_size=config.pool_size,
            timeout=config.timeout,
            reconnect_timeout=RECONNECT_TIMEOUT,
            num_workers=CONNECTING,
            max_lifetime=MAX_CONNECTION_LIFETIME,
            kwargs={"autocommit": True, "prepare_threshold": None if config.pooler else 0, "closing": self._closing},
            configure=None if config.pooler else self._configure,
            name=application,
        )
        self._idle: list[Connection] = []
        """Connections that no call uses. The one used last is the first to be used again."""
        self._used: set[Connection] = set()
        """Connections that calls use."""
        self._free_places = config.pool_size
        self._connecting = 0
        """Calls that have a place, and wait for the driver's pool to connect."""
        self._queue: deque[asyncio.Future[None]] = deque()
        self._max_waiting = config.pool_waiting
        self._generation = 0
        self._replace_time = 0.0
        """When all connections were replaced last, by the clock of the event loop."""
        self._replacements: set[asyncio.Task[None]] = set()
        self._returns: set[asyncio.Task[None]] = set()

    async def _configure(self, connection: Connection) -> None:
        with cut_after(connection, self.timeout):
            row = await (await connection.execute(SET_IN_SESSION, self._settings)).fetchone()
        connection.server = row[0] if row else ""
        if not self._to_replicas:  # each of them is another server
            self.note_server(connection.server)

    def note_server(self, server: str) -> None:
        """Notes where new connections lead. If that is another server than before, leaves the one before.

        That one was stopped, has vanished or is about to. If it still responds, what is read from it is stale.
        Connections to a pooler stay: it may lead to the new server already.

        Args:
            server: What SERVER has read on a new connection.
        """
        if server == self.server:
            return
        previous, self.server = self.server, server
        if previous and not self.statement_settings:
            log.warning("%s: connections lead to another database server: leaving the previous one", self.name)
            self.replace_all(asyncio.get_running_loop().time())
            for connection in (each for each in self._used if each.server != server):
                cut(connection)
        for callback in self.on_new_server:
            callback(server)

    async def open(self) -> None:
        """Starts connecting; does not wait for the database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Closes all connections, those in use as soon as they are given back."""
        self._generation += 1  # connections still in use are not kept afterwards
        self._closing.set()  # the driver's pool waits for connections that are being made
        idle, self._idle = self._idle, []
        await asyncio.gather(*map(self._pool.putconn, idle), return_exceptions=True)
        while background := [*self._replacements, *self._returns]:
            await asyncio.wait(background)
        await self._pool.close(timeout=CLOSE_TIMEOUT)

    @property
    def idle(self) -> int:
        """How many connections no call uses."""
        return len(self._idle) + self._pool.get_stats()["pool_available"]

    @property
    def used(self) -> int:
        """How many connections calls use, or have just given back."""
        return self.size - self._free_places - self._connecting

    @property
    def waiting(self) -> int:
        """How many calls wait for a connection."""
        return len(self._queue) + self._connecting

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
            return self._use(self._idle.pop())
        clock = asyncio.get_running_loop().time
        start = time.perf_counter()
        deadline = clock() + max(min(timeout, OUTAGE_ACQUIRE_TIMEOUT) if self.is_down else timeout, MIN_TIMEOUT)
        if not self._free_places:
            self.check_queue()
        try:
            connection = await self._wait_for_connection(deadline)
        finally:
            self.on_wait(time.perf_counter() - start)
        return self._use(connection)

    def _use(self, connection: Connection) -> Connection:
        self._used.add(connection)
        connection.is_unreplicated = False  # that was the previous caller's commit
        return connection

    async def _wait_for_connection(self, deadline: float) -> Connection:
        clock = asyncio.get_running_loop().time
        if self._free_places:
            self._free_places -= 1
        else:
            await self._wait_for_place(deadline)
        if self._idle:
            return self._idle.pop()
        self._connecting += 1
        try:
            # The driver's pool may still have connections that are to be replaced.
            await self.wait_until_replaced()
            connection = await self._pool.getconn(max(deadline - clock(), MIN_TIMEOUT))
        except BaseException as error:
            self._free_place()
            if isinstance(error, PoolTimeout):
                self.timeouts += 1
                raise database_unavailable() from None
            if isinstance(error, PoolClosed):
                raise unavailable("the server is shutting down") from None
            raise
        finally:
            self._connecting -= 1
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
            self.timeouts += 1
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
        self._used.discard(connection)
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
            self.timeouts += 1
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
