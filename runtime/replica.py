"""Reads from replicas of the database, as long as one is up to date. Otherwise from the primary.

A replica may be behind by any time, and knows of it only as long as it hears from the primary. So the primary is asked
each second how far its log (the WAL) has come. A replica that has not applied what the log had `max_lag` seconds ago is
not read.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import LiteralString, TypeVar

import grpc
import psycopg

from runtime.config import DatabaseConfig
from runtime.connection import Connection, cut_after
from runtime.database import Database
from runtime.errors import ApiError, database_unavailable, unavailable
from runtime.shielded import run_shielded

log = logging.getLogger(__name__)

Row = TypeVar("Row")

POLL_INTERVAL = 1.0
"""Seconds between two questions to the primary, and between two attempts to use replicas again."""

CHECK_INTERVAL = 1.0
"""Seconds for which a connection to a replica is used without another check."""

CHECK_TIMEOUT = 1.0
"""Seconds that a check may take. A replica whose node is gone does not respond at all."""

HANG_TIMEOUT = 1.0
"""Seconds after which replicas are left if reads wait for a connection and none of them gets one."""

_IS_UP_TO_DATE: LiteralString = """
    SELECT pg_is_in_recovery() AND coalesce(pg_last_wal_replay_lsn() >= %(position)s::pg_lsn, false)
    """


@dataclass(frozen=True)
class _Position:
    position: str


@dataclass(frozen=True)
class _Probe:
    responds: bool


class PrimaryLog:
    """How far the log of the primary has come."""

    def __init__(self, primary: Database, max_lag: float) -> None:
        """`max_lag` is how many seconds a replica may be behind."""
        self._primary = primary
        self._max_lag = max_lag
        self._positions: deque[tuple[float, str]] = deque()
        """When the primary was asked, by the clock of the event loop, and its position. The first one is `required`."""

    @property
    def required(self) -> str | None:
        """What a replica must have applied. None if the primary has not been asked yet."""
        self._drop_old()
        return self._positions[0][1] if self._positions else None

    def _drop_old(self) -> None:
        newest_allowed = asyncio.get_running_loop().time() - self._max_lag
        while len(self._positions) > 1 and self._positions[1][0] <= newest_allowed:
            self._positions.popleft()

    async def poll(self) -> None:
        """Asks the primary.

        While it does not respond, what it said last goes on to count: so replicas are read during a failover, too.

        Raises:
            ApiError: The primary is unavailable.
        """
        start = asyncio.get_running_loop().time()
        query: LiteralString = "SELECT pg_current_wal_lsn()::text AS position"
        found = await self._primary.fetch_one("replica.position", query, {}, _Position)
        if found:
            self._positions.append((start, found.position))
            self._drop_old()  # here, too: without reads from replicas, `required` is not asked for


class Replica(Database):
    """Runs statements that only read: on a replica if one is up to date, and otherwise on the primary.

    The name of the service leads each connection to one of the replicas, so each connection is checked by itself.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        application: str,
        settings: Mapping[str, str] | None = None,
        *,
        primary: Database,
        primary_log: PrimaryLog,
    ) -> None:
        """Prepares the connections; they are made when the database is opened.

        Args:
            config: Where the replicas are, and the limits of the pool.
            application: The name that PostgreSQL shows for the connections.
            settings: Settings of PostgreSQL for every statement, by name.
            primary: Runs the statements if no replica can.
            primary_log: What a replica must have applied.

        Raises:
            ConfigError: A connection string is malformed, or the folder of credentials is missing.
        """
        super().__init__(config, application, settings)
        self._primary = primary
        self._primary_log = primary_log
        self._hang_timeout = min(HANG_TIMEOUT, config.timeout)
        self._progress_time = 0.0
        """When a read got a connection last, or the first of some began to wait; by the clock of the event loop."""
        self.is_usable = False
        """Whether calls try a replica first."""
        self.reads = {"replica": 0, "primary": 0}
        """How many statements each kind of server was asked to run for a caller."""

    async def fetch(
        self,
        name: LiteralString,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[Row],
        *,
        idempotent: bool = True,
        replan: bool = False,
    ) -> list[Row]:
        """Runs one statement that only reads, as `Database.fetch` does.

        If no replica can run it, the primary does. Overload and timeouts of a replica that responds are no reason: the
        primary would then have its load, too.
        """
        if self.is_usable:
            try:
                rows = await super().fetch(name, query, params, row, idempotent=False, replan=replan)
            except ApiError as error:
                if error.code != grpc.StatusCode.UNAVAILABLE:
                    raise
                self._leave(error)
            else:
                self.reads["replica"] += 1
                return rows
        self.reads["primary"] += 1
        return await self._primary.fetch(name, query, params, row, idempotent=idempotent, replan=replan)

    def _leave(self, error: ApiError) -> None:
        if self.is_usable:
            log.warning("%s: reads use the primary: %s", self.pool.name, error.text)
            self.is_usable = False

    async def probe(self) -> None:
        """Finds out whether a replica can be used again."""
        if self.is_usable:
            return
        with suppress(ApiError, psycopg.Error):
            await super().fetch("replica.probe", "SELECT true AS responds", {}, _Probe, idempotent=False)
            self.is_usable = True
            log.info("%s: reads use replicas", self.pool.name)

    async def _acquire(self, timeout: float) -> Connection:
        clock = asyncio.get_running_loop().time
        connection = await self._acquire_unless_hanging(timeout)
        if connection.check_time <= clock():
            try:
                await run_shielded(self._check_server(connection))
            except asyncio.CancelledError:
                if connection.check_time > clock():  # otherwise the check has given it back
                    self.pool.release(connection)
                raise
        return connection

    async def _acquire_unless_hanging(self, timeout: float) -> Connection:
        """Returns a connection. Raises UNAVAILABLE if the queue does not move, as with a replica that is frozen.

        If it moves, but too slowly, that is overload: RESOURCE_EXHAUSTED.
        """
        clock = asyncio.get_running_loop().time
        pool = self.pool
        if not pool.used and not pool.waiting:
            self._progress_time = clock()
        if pool.used == pool.size and pool.waiting and self._hangs():
            raise unavailable("the replica does not respond")
        try:
            connection = await super()._acquire(timeout)
        except ApiError as error:
            if error.code == grpc.StatusCode.RESOURCE_EXHAUSTED and self._hangs():
                raise unavailable("the replica does not respond") from None
            raise
        self._progress_time = clock()
        return connection

    def _hangs(self) -> bool:
        return asyncio.get_running_loop().time() >= self._progress_time + self._hang_timeout

    async def _check_server(self, connection: Connection) -> None:
        """Raises ApiError, and gives the connection back, unless its server is a replica that is up to date."""
        clock = asyncio.get_running_loop().time
        start, up_to_date = clock(), False
        try:
            if position := self._primary_log.required:
                with cut_after(connection, CHECK_TIMEOUT):
                    found = await (await connection.execute(_IS_UP_TO_DATE, {"position": position})).fetchone()
                up_to_date = bool(found and found[0])
            if not up_to_date:
                await connection.close()  # the next one may lead to another replica
                raise unavailable("the replica is not up to date")
            connection.check_time = clock() + CHECK_INTERVAL
        except psycopg.Error:
            self.pool.replace_all(start)
            raise database_unavailable() from None
        finally:
            if not up_to_date:
                self.pool.release(connection)


class ReplicaWatch:
    """Keeps up what is known of the primary and its replicas."""

    def __init__(self, primary_log: PrimaryLog, replicas: Sequence[Replica]) -> None:
        self._primary_log = primary_log
        self._replicas = replicas

    async def step(self) -> bool:
        """Asks once. Returns False: there is no more to do before the next time."""
        try:
            await self._primary_log.poll()
        finally:
            await asyncio.gather(*(each.probe() for each in self._replicas))
        return False
