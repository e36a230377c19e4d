"""Whether a service can use its database: checked from time to time, for the service's health and log."""

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import LiteralString

import psycopg
from psycopg import AsyncConnection, errors

from runtime import driver_errors
from runtime.connection import Connection, cut_after
from runtime.credentials import is_login_refused
from runtime.errors import ApiError, commits_stalled
from runtime.health import LastingProblem
from runtime.pool import Pool
from runtime.schema import RECORD, Schema
from runtime.session import end_sessions_elsewhere, end_standby_session, server_of

log = logging.getLogger(__name__)

MIN_POSTGRESQL_VERSION = 17
"""The oldest major version of PostgreSQL that the statements work on."""

CHECK_ACQUIRE_TIMEOUT = 1.0
"""Seconds that a check waits for a connection of the pool, before it opens a connection of its own."""

PING_TIMEOUT = 1.5
"""Seconds after which a connection that does not respond is closed. The ping of a check reads no table, so it waits
for no lock."""

NEW_CONNECTION_TIMEOUT = 3.0
"""Seconds that a check waits for a new connection."""

SERVER_CHECK_INTERVAL = 10.0
"""Seconds between two checks where a new connection leads. If that is another server, the pool leaves the one before:
it may be a primary that was cut off and replaced, and that responds still."""

COMMIT_STALL = 2.0
"""Seconds for which checks see a commit wait for a synchronous standby, after which writes are refused. Further ones
would wait as well, each on a connection that is lost to the server until a standby comes back."""

_PING: LiteralString = """
    SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
        current_setting('synchronous_standby_names') <> '',
        ARRAY (
            SELECT backend_xid::text FROM pg_stat_activity
            WHERE wait_event = 'SyncRep' AND usename = current_user AND backend_xid IS NOT NULL
        )
    """
"""Reads whether the server is a standby, whether it accepts writes, whether it has synchronous standbys, and which
transactions wait for one at their commit. PostgreSQL does not say for how long: their statements may have waited for
locks before."""

_NO_SLOT = re.compile(r"too many (clients|connections)|remaining connection slots")
"""How PostgreSQL refuses a connection for want of a slot. libpq does not reveal the SQLSTATE of a refused connection.
If the server speaks another language than English, this counts as an outage."""


class Readiness:
    """What is known of the database behind a pool."""

    def __init__(self, pool: Pool, write_probe: LiteralString) -> None:
        """Starts without any knowledge.

        Args:
            pool: The connections to the database.
            write_probe: A statement that writes as the service does. If empty, refused writes are not remembered.
        """
        self._pool = pool
        self._write_probe: LiteralString = write_probe
        self._write_refusal: str | None = None
        """The SQLSTATE with which the database refuses writes."""
        self._was_usable = False
        self.is_synchronous = False
        """Whether commits wait for a standby."""
        self.is_stalled = False
        """Whether commits wait in vain, as long as no standby comes back."""
        self._waiting_commits: dict[str, float] = {}
        """When a check has seen each transaction wait for a standby first, by the clock of the event loop."""
        self._is_read_only = False
        """Whether the pool was led to a server that accepts no writes, as a standby."""
        pool.on_new_server.append(self._forget)
        self._server_check_time = 0.0
        """When to check next where a new connection leads, by the clock of the event loop."""
        self.on_server_check: list[Callable[[str], object]] = []
        """Are told to which run of which server a new connection leads, each time that it was checked."""
        self.is_checked = False
        """Whether there was a check."""

    @property
    def is_up(self) -> bool | None:
        """Whether the last check reached the database; None before the first one."""
        return not self._pool.is_down if self.is_checked else None

    @property
    def is_writable(self) -> bool | None:
        """Whether the database accepts writes and commits end, as far as is known; None before the first check."""
        if not (self.is_checked or self._write_probe):
            return None
        return not (self._write_refusal or self.is_stalled or self._is_read_only)

    def note_refused_write(self, error: psycopg.Error) -> None:
        """Remembers that the database accepts no writes, until the write probe succeeds."""
        if self._write_probe and driver_errors.is_write_refusal(error):
            self._write_refusal = error.sqlstate

    def check_writes(self) -> None:
        """Checks that the database is not known to refuse writes.

        Raises:
            ApiError: What a write would raise.
        """
        if self.is_stalled:
            raise commits_stalled()
        if refusal := driver_errors.to_api_error(self._write_refusal):
            raise refusal

    def has_waited_in_pooler(self, error: psycopg.Error, deadline: float) -> bool:
        """Returns whether a read most likely never left the pooler's queue.

        The pooler ends the connection then, and in a pipeline psycopg does not see why. A statement that has reached
        the server ends by its own timeout.

        Args:
            error: What the statement failed with: its connection was lost.
            deadline: When the statement should have ended, by the clock of the event loop.
        """
        is_silent = error.sqlstate is None and asyncio.get_running_loop().time() >= deadline
        return bool(self._pool.statement_settings) and is_silent and not self._pool.is_down

    async def check(self, schema: Schema) -> str:
        """Returns why the database cannot be used, as one line for the log; empty if it can.

        Args:
            schema: The schema that the service needs.
        """
        try:
            return await self._check(schema)
        finally:
            self.is_checked = True

    async def _check(self, schema: Schema) -> str:
        pool = self._pool
        try:
            connection = await pool.acquire(min(CHECK_ACQUIRE_TIMEOUT, pool.timeout))
            try:
                if await self._ping(connection):
                    pool.is_down = True
                    return "the database is unavailable: the server is a standby"
                version = connection.info.server_version // 10_000
                if version < MIN_POSTGRESQL_VERSION:
                    return f"the database is PostgreSQL {version}; {MIN_POSTGRESQL_VERSION} or newer is needed"
                with cut_after(connection, pool.timeout):
                    problem = schema.check(await (await connection.execute(RECORD)).fetchall())
                self._was_usable = not problem
                pool.is_down = False
                if self._write_refusal:
                    await self._probe_writes(connection)
                used_server = await self._read_used_server(connection)
            finally:
                pool.release(connection)
            await self._check_server(used_server)
            return problem
        except errors.UndefinedTable:
            pool.is_down = False
            return f"the schema is missing; version {schema.version} is needed"
        except (psycopg.Error, ApiError):
            problem = await self._diagnose()
            if pool.statement_settings:  # the pooler may wait for a server that is gone
                await self._check_server()
            return problem

    async def _ping(self, connection: Connection) -> bool:
        """Reads what state the server is in. Returns whether it is a standby, which the pool then leaves."""
        start = asyncio.get_running_loop().time()
        with cut_after(connection, min(PING_TIMEOUT, self._pool.timeout)):
            row = await (await connection.execute(_PING)).fetchone()
        assert row
        is_standby: bool
        is_standby, self._is_read_only, self.is_synchronous, waiting = row
        self._waiting_commits = {each: self._waiting_commits.get(each, start) for each in waiting}
        stalled = min(self._waiting_commits.values(), default=start) <= start - COMMIT_STALL
        if stalled != self.is_stalled:
            log.warning("commits wait for a synchronous standby" if stalled else "commits reach a standby again")
            self.is_stalled = stalled
        if is_standby:
            await end_standby_session(connection)
            self._pool.replace_all(start)
        return is_standby

    def _forget(self, server: str) -> None:
        """Forgets what was known of the previous server."""
        self.is_stalled = self._is_read_only = False
        self._waiting_commits = {}

    def _is_server_check_due(self) -> bool:
        return asyncio.get_running_loop().time() >= self._server_check_time

    async def _read_used_server(self, connection: Connection) -> str:
        """Returns where a connection of the pool leads. Empty if that is unknown: a pooler is asked only in time."""
        if not self._pool.statement_settings or not self._is_server_check_due():
            return connection.server
        with cut_after(connection, self._pool.timeout):
            return await server_of(connection)

    async def _check_server(self, used_server: str = "") -> None:
        """Checks from time to time where a new connection to the database itself leads, and leaves other servers.

        Args:
            used_server: Where a connection of the pool has just led, if that is known. A pooler keeps its connections.
        """
        if not self._is_server_check_due():
            return
        self._server_check_time = asyncio.get_running_loop().time() + SERVER_CHECK_INTERVAL
        with suppress(psycopg.Error, TimeoutError, ApiError):  # the connections that the pool has work
            server = await self._find_server(self._pool.direct_conninfo())
            self._note_server(server)
            if self._pool.statement_settings and used_server not in ("", server):
                await self._leave_server(server)

    def _note_server(self, server: str) -> None:
        self._pool.note_server(server)
        for callback in self.on_server_check:
            callback(server)

    async def _leave_server(self, server: str) -> None:
        """Ends all sessions of the role where the pooler leads, unless that is `server`."""
        pool = self._pool
        log.warning("%s: the pooler leads to another database server than a new connection: leaving it", pool.name)
        connection = await pool.acquire(min(CHECK_ACQUIRE_TIMEOUT, pool.timeout))
        try:
            await end_sessions_elsewhere(connection, server)
        finally:
            pool.release(connection)

    async def _find_server(self, conninfo: str) -> str:
        """Makes a new connection, and returns where it leads.

        Raises:
            psycopg.Error: No connection can be made.
            TimeoutError: There is no response within NEW_CONNECTION_TIMEOUT.
        """
        async with asyncio.timeout(min(NEW_CONNECTION_TIMEOUT, self._pool.timeout)):
            async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
                with cut_after(connection, NEW_CONNECTION_TIMEOUT / 2):
                    return await server_of(connection)

    async def _probe_writes(self, connection: Connection) -> None:
        """Checks whether the database accepts writes again."""
        try:
            with cut_after(connection, self._pool.timeout):
                async with connection.transaction(force_rollback=True):
                    await connection.execute(self._write_probe)
        except psycopg.Error as error:
            if not driver_errors.is_write_refusal(error):
                raise
        else:
            log.info("the database accepts writes again")
            self._write_refusal = None

    async def _is_pooler_busy(self) -> bool:
        """Returns whether statements wait in the pooler's queue: it takes clients, and the database itself responds."""
        pool = self._pool
        try:
            async with asyncio.timeout(min(NEW_CONNECTION_TIMEOUT, pool.timeout)):
                await (await AsyncConnection.connect(pool.conninfo())).close()
            await self._find_server(pool.direct_conninfo())
        except psycopg.Error as error:
            return bool(_NO_SLOT.search(str(error)))
        except TimeoutError:
            return False
        return True

    async def _diagnose(self) -> str:
        """Returns why no connection can be made, which the pool does not reveal; empty if the pool is only busy."""
        pool, problem = self._pool, ""
        try:
            server = await self._find_server(pool.conninfo())
            if not pool.statement_settings:
                self._note_server(server)
        except psycopg.Error as error:
            if self._was_usable and _NO_SLOT.search(str(error)) and not pool.waits_for_database():
                return ""  # the server has no slot beyond the connections that we use already
            problem = "the database is unavailable: " + " ".join(str(error).split())
            if isinstance(error, psycopg.OperationalError) and is_login_refused(error):
                problem = LastingProblem(problem)
        except TimeoutError:
            problem = f"the database is unavailable: no response within {min(NEW_CONNECTION_TIMEOUT, pool.timeout):g} s"
        if problem and pool.statement_settings and await self._is_pooler_busy():
            problem = ""
        pool.is_down = bool(problem)
        if problem:
            return problem
        # It responds, so this is overload. Being unready would only move the load to the other replicas.
        return "" if self._was_usable else "all connections to the database are busy"
