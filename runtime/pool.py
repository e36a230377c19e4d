"""The connections of a service to its PostgreSQL: a small fixed pool, and a bounded queue before it."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import LiteralString

from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from runtime.config import DatabaseConfig
from runtime.connection import Connection, answering
from runtime.credentials import ConnectionInfo
from runtime.errors import ApiError, resource_exhausted, unavailable

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

HOLD = 60.0
"""Seconds for which a connection is kept between calls, before the driver's pool sees it again and may replace it."""

Settings = tuple[list[str], list[str]]
"""Names and values of PostgreSQL's settings."""


class Pool:
    """Connections that have to be given back. Whoever waits for one does so for a bounded time.

    The driver's pool makes and replaces them. Between calls they stay here: to fetch one there, and to return it, costs
    as much as a small statement.
    """

    def __init__(self, config: DatabaseConfig, application: str, settings: Mapping[str, str]) -> None:
        """`settings` are PostgreSQL's, by name, for each statement."""
        self.timeout = config.timeout
        self.conninfo = ConnectionInfo(config, application, through_pooler=True)
        self.away = False
        """Whether the database is known not to answer."""
        self.statement_settings: Settings | None = None
        """What has to be set in each transaction. A pooler gives the connection of one transaction
        to somebody else for the next: neither settings nor prepared statements are still there."""
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
            reconnect_timeout=RECONNECT,
            max_lifetime=LIFETIME,
            kwargs={"autocommit": True, "prepare_threshold": None if config.pooler else 0},
            configure=None if config.pooler else self._configure,
            name=application,
        )
        self._kept: list[Connection] = []
        """Those that nobody uses. The last one used is the first one to be used again."""
        # The queue stands before the pool: in the pool's own, those who have left keep their places until a connection
        # comes, and while it is full nobody has it try for one. A database that was away would never be found again.
        self._free_places = config.pool_size
        self._queue: deque[asyncio.Future[None]] = deque()
        self._max_waiting = config.pool_waiting
        self._generation = 0
        self._renewed = 0.0
        self._renewals: set[asyncio.Task[None]] = set()
        self._returns: set[asyncio.Task[None]] = set()

    async def _configure(self, connection: Connection) -> None:
        with answering(connection, self.timeout):
            await connection.execute(_SET_IN_SESSION, self._settings)

    async def open(self) -> None:
        """Starts to connect; does not wait for the database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        self._generation += 1  # what is still in use is not kept
        kept, self._kept = self._kept, []
        await asyncio.gather(*map(self._pool.putconn, kept), return_exceptions=True)
        while background := [*self._renewals, *self._returns]:
            await asyncio.wait(background)
        await self._pool.close(timeout=5)

    async def take(self, timeout: float) -> Connection:
        """Returns a connection, which has to be given back. `timeout` is in seconds."""
        if self._free_places and self._kept:
            self._free_places -= 1
            return self._kept.pop()
        clock = asyncio.get_running_loop().time
        deadline = clock() + max(min(timeout, AWAY) if self.away else timeout, 0.01)
        if self._free_places:
            self._free_places -= 1
        else:
            self.check_queue()
            await self._turn(deadline)
        if self._kept:
            return self._kept.pop()
        try:
            connection = await self._pool.getconn(max(deadline - clock(), 0.01))
        except BaseException as error:
            self._leave()
            if isinstance(error, PoolTimeout):
                raise unavailable("the database does not answer") from None
            if isinstance(error, PoolClosed):
                raise unavailable("the server is shutting down") from None
            raise
        connection.generation = self._generation
        connection.return_time = clock() + HOLD
        return connection

    async def _turn(self, deadline: float) -> None:
        """Waits for a place."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.append(turn)
        timer = loop.call_at(deadline, self._expire, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):
                    self._queue.remove(turn)
            elif not turn.exception():
                self._leave()  # it was given a place in the same moment
            raise
        finally:
            timer.cancel()

    def _expire(self, turn: "asyncio.Future[None]") -> None:
        if not turn.done():
            self._queue.remove(turn)
            turn.set_exception(self._queue_timeout())

    def _leave(self) -> None:
        """Gives a place to the next in the queue, if there is one."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free_places += 1

    def give_back(self, connection: Connection) -> None:
        if (
            connection.pgconn.transaction_status == TransactionStatus.IDLE
            and connection.generation == self._generation
            and connection.return_time > asyncio.get_running_loop().time()
        ):
            self._kept.append(connection)
            self._leave()
            return
        self._background(self._return(connection), self._returns)

    def leave(self, connection: Connection, seconds: float, timer: asyncio.TimerHandle) -> None:
        """Gives a connection back when what its caller has left unfinished has ended, which is cancelled after so many
        seconds. `timer` is the one that cuts it."""
        self._background(self._end(connection, seconds, timer), self._returns)

    async def _end(self, connection: Connection, seconds: float, timer: asyncio.TimerHandle) -> None:
        try:
            await connection.end(seconds)
        finally:
            timer.cancel()
            self.give_back(connection)

    @staticmethod
    def _background(work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _return(self, connection: Connection) -> None:
        """Leaves it to the driver's pool what becomes of a connection."""
        try:
            await self._pool.putconn(connection)
        finally:
            self._leave()

    def check_queue(self) -> None:
        """Raises RESOURCE_EXHAUSTED where nobody else may wait."""
        if not self._free_places and len(self._queue) >= self._max_waiting:
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
            self._generation += 1
            kept, self._kept = self._kept, []
            self._background(self._replace(kept), self._renewals)

    async def _replace(self, kept: Sequence[Connection]) -> None:
        await self._pool.drain()
        for connection in kept:
            await self._pool.putconn(connection)

    async def renewed(self) -> None:
        """Waits until no connection from before the last `renew` can be taken."""
        if self._renewals:
            await asyncio.wait(self._renewals)
