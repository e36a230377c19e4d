"""The service's PostgreSQL: the one place that runs statements, retries them and translates their errors."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import LiteralString, TypeVar

import psycopg

from runtime import driver_errors
from runtime.backoff import Backoff
from runtime.config import DatabaseConfig
from runtime.connection import Connection, cut, cut_after
from runtime.errors import commits_stalled, database_unavailable, queue_full, unavailable
from runtime.limited_log import LimitedLines
from runtime.pool import Pool
from runtime.readiness import Readiness
from runtime.rows import fetch_rows, rows_of
from runtime.session import (
    SET_IN_TRANSACTION,
    WRITE_NOTHING,
    OnStandbyError,
    Settings,
    check_replicated,
    end_standby_session,
    writes,
)
from runtime.shielded import run_shielded
from runtime.telemetry.statements import note_statement_error, statement_span

log = logging.getLogger(__name__)
log_error = LimitedLines(log, logging.WARNING)

Row = TypeVar("Row")

MAX_CONNECTION_RETRIES = 4
"""How often a statement that lost its connection is retried."""

RACE_PAUSES = (0.01, 0.2)
"""The first and the longest pause, in seconds, before a statement that lost a race (a deadlock, a serialization
failure) is retried. It is retried as long as the call has time, since it has changed nothing."""

STANDBY_TIMEOUT = 1.0
"""Seconds for which a statement is retried while a pooler leads to a standby."""

CANCEL_DELAY = 0.2
"""Seconds that a statement may go on after its caller was cancelled, before it is cancelled in the database. Nearly all
statements end sooner, and cancelling one costs the server a connection."""

CUT_MARGIN = 1.0
"""Seconds beyond a statement's timeout after which its connection is cut. Within them the server itself should report
the timeout."""

ONE_PROCESSOR = {"max_parallel_workers_per_gather": "0"}
"""Settings for a pool of searches: they keep no more processors of the database busy than it has connections."""

STANDBY_RECONNECT_INTERVAL = 5.0
"""Seconds between two attempts to find another server because the present one accepts no writes."""


class ConstraintViolation(Exception):
    """A statement violated a constraint. The store knows what the constraint's name means."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Database:
    """Runs statements, each as one transaction."""

    def __init__(
        self,
        config: DatabaseConfig,
        application: str,
        settings: Mapping[str, str] | None = None,
        *,
        write_probe: LiteralString = "",
    ) -> None:
        """Prepares the connections; they are made when the database is opened.

        Args:
            config: Where the database is, and the limits of the pool.
            application: The name that PostgreSQL shows for the connections.
            settings: Settings of PostgreSQL for every statement, by name.
            write_probe: A statement that writes as the service does. After a write was refused, readiness checks run it
                and roll it back, until it succeeds; meanwhile `check_admission` refuses writes.

        Raises:
            ConfigError: A connection string is malformed, or the folder of credentials is missing.
        """
        self._timeout = config.timeout
        milliseconds = str(int(config.timeout * 1000))
        own = {
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "timezone": "UTC",
        }
        self.pool = Pool(config, application, own | dict(settings or {}))
        self.readiness = Readiness(self.pool, write_probe)
        self._standby_time = -STANDBY_RECONNECT_INTERVAL
        """When another server was looked for last, by the clock of the event loop."""
        self.statements: defaultdict[str, int] = defaultdict(int)
        """How often each statement has run, by name. Each attempt counts."""
        self.statement_time: defaultdict[str, float] = defaultdict(float)
        """How long each statement has run in all, in seconds, without its waits for a connection."""
        self.errors: dict[str, int] = dict.fromkeys(driver_errors.KINDS, 0)
        """How many statements failed, by what `driver_errors.kind` says. Each attempt counts."""
        self.open = self.pool.open
        self.close = self.pool.close
        self.check = self.readiness.check

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
        """Runs one statement as one transaction.

        A statement that lost a race (a deadlock, a serialization failure) is retried as long as there is time. One that
        lost its connection is retried too, if it is idempotent.

        gRPC cancels a handler when the deadline of its caller has passed. A call that waits for a connection then
        leaves the queue. A statement that runs is cancelled in the database after CANCEL_DELAY; it has its whole effect
        or none.

        Args:
            name: The statement's name in logs and traces.
            query: The SQL.
            params: The parameters, by name.
            row: A dataclass whose fields are the columns of the result.
            idempotent: Whether running the statement twice has the same effect as running it once.
            replan: Whether PostgreSQL plans the statement for each run, because its best plan depends on the
                parameters. Otherwise it uses one plan for all parameters after some runs.

        Returns:
            The rows.

        Raises:
            ConstraintViolation: The statement violated a constraint.
            ApiError: The database is unavailable, overloaded, or refuses the statement for now.
        """
        if self.readiness.is_stalled and writes(query):
            raise commits_stalled()
        clock = asyncio.get_running_loop().time
        begin = clock()
        deadline = begin + self._timeout
        backoff = Backoff(*RACE_PAUSES)
        with statement_span(name, query, self.pool.conninfo) as span:
            for attempt in count():
                start = clock()
                try:
                    return await self._fetch_once(name, query, params, row, deadline - start, replan)
                except psycopg.IntegrityError as error:
                    self.errors[driver_errors.CONSTRAINT] += 1
                    note_statement_error(span, error)
                    raise ConstraintViolation(error.diag.constraint_name or "") from None
                except psycopg.Error as error:
                    self.errors[driver_errors.kind(error)] += 1
                    note_statement_error(span, error)
                    if driver_errors.is_race(error):
                        pause = backoff.next()
                        if clock() + pause >= deadline:
                            raise unavailable("the database is busy", 0.2) from None
                        await asyncio.sleep(pause)
                    elif isinstance(error, OnStandbyError):
                        pause = backoff.next()
                        if clock() + pause >= min(deadline, begin + STANDBY_TIMEOUT):
                            raise self._translate(name, error) from None
                        await asyncio.sleep(pause)
                    elif driver_errors.is_connection_lost(error):
                        if not writes(query) and self.readiness.has_waited_in_pooler(error, deadline):
                            raise queue_full() from None
                        log.warning("database connection lost: %s", error.sqlstate or type(error).__name__)
                        self.pool.replace_all(start)
                        if attempt >= MAX_CONNECTION_RETRIES or not idempotent or clock() >= deadline:
                            raise database_unavailable() from None
                    elif not await self._leave_standby(error, start):
                        raise self._translate(name, error) from None
        raise AssertionError("unreachable")

    async def fetch_one(
        self,
        name: LiteralString,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[Row],
        *,
        idempotent: bool = True,
    ) -> Row | None:
        """Runs one statement that returns at most one row, as `fetch` does. Returns None if there is no row."""
        rows = await self.fetch(name, query, params, row, idempotent=idempotent)
        return rows[0] if rows else None

    async def execute(
        self, name: LiteralString, query: LiteralString, params: Mapping[str, object], *, idempotent: bool = True
    ) -> None:
        """Runs one statement that returns no rows, as `fetch` does."""
        await self.fetch(name, query, params, object, idempotent=idempotent)

    async def _fetch_once(
        self,
        name: str,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[Row],
        timeout: float,
        replan: bool,
    ) -> list[Row]:
        connection = await self._acquire(timeout)
        start = time.perf_counter()
        if self.pool.statement_settings:
            try:
                return await self._fetch_through_pooler(connection, self.pool.statement_settings, query, params, row)
            finally:
                self._count(name, start)
        timer = asyncio.get_running_loop().call_later(self._timeout + CUT_MARGIN, cut, connection)
        connection.keep_running_on_cancel = True
        try:
            cursor = connection.cursor(row_factory=rows_of(row))
            # A statement that is not prepared is planned each time.
            await cursor.execute(query, params, prepare=False if replan else None)
            check_replicated(connection)
            return await fetch_rows(cursor)
        finally:
            self._count(name, start)
            if connection.abandoned:
                self.pool.release_abandoned(connection, self._cancel_delay(query), timer)
            else:
                timer.cancel()
                connection.keep_running_on_cancel = False
                self.pool.release(connection)

    async def _acquire(self, timeout: float) -> Connection:
        """Returns a connection for a statement, which has to be released."""
        return await self.pool.acquire(timeout)

    def _cancel_delay(self, query: str) -> float:
        """Returns after how many seconds to cancel a statement whose caller has left.

        A commit that waits for a synchronous standby must not be cancelled: PostgreSQL then makes the change visible
        although no standby has it. A retry would find it and acknowledge it, and a failover would lose it. Such a
        statement ends by its own timeout, which does not apply to the commit.
        """
        return self._timeout + 2 * CUT_MARGIN if self.readiness.is_synchronous and writes(query) else CANCEL_DELAY

    def _count(self, name: str, start: float) -> None:
        self.statements[name] += 1
        self.statement_time[name] += time.perf_counter() - start

    async def _fetch_through_pooler(
        self,
        connection: Connection,
        settings: Settings,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[Row],
    ) -> list[Row]:
        """Runs a statement in one transaction, and one round trip, with settings that end with the transaction."""
        time_limit = asyncio.timeout(None)

        async def run() -> list[Row]:
            try:
                async with time_limit, connection.cursor(row_factory=rows_of(row)) as cursor:
                    with cut_after(connection, self._timeout + CUT_MARGIN):
                        async with connection.pipeline():
                            state = await connection.execute(SET_IN_TRANSACTION, settings)
                            await cursor.execute(query, params)
                    check_replicated(connection)
                    is_standby, _ = await state.fetchone() or (False, 0)
                    if not is_standby:
                        return await fetch_rows(cursor)
                # What a standby says may be stale.
                await end_standby_session(connection)
                raise OnStandbyError
            except psycopg.Error as error:
                if driver_errors.may_come_from_standby(error) and await end_standby_session(connection):
                    raise OnStandbyError from None
                raise
            finally:
                self.pool.release(connection)

        def limit() -> None:
            with suppress(RuntimeError):  # the statement has ended
                time_limit.reschedule(asyncio.get_running_loop().time() + self._cancel_delay(query))

        # Another task could not finish an abandoned pipeline.
        return await run_shielded(run(), limit)

    async def confirm_replicated(self) -> None:
        """Waits until a standby has all that was committed, if commits wait for one; raises what `fetch` does.

        For repeated calls: after a crash, what an earlier call wrote is visible although no standby may have it.
        """
        if self.readiness.is_synchronous:
            await self.execute("replay.confirm", WRITE_NOTHING, {})

    async def check_admission(self) -> None:
        """Checks whether a write would be accepted, as far as that is known without asking the database.

        For callers that first do work elsewhere, which would be wasted if the write failed.

        Raises:
            ApiError: What `fetch` would raise.
        """
        self.pool.check_queue()
        self.readiness.check_writes()
        if self.pool.is_down:
            self.pool.release(await self.pool.acquire(self._timeout))

    async def _leave_standby(self, error: psycopg.Error, start: float) -> bool:
        """Returns whether to run a statement again because its server accepts no writes.

        After a failover another server accepts them, so all connections are replaced; nothing was written yet. If the
        new connections accept no writes either, the database as a whole is read-only.

        Args:
            error: What the statement failed with.
            start: When it started, by the clock of the event loop.
        """
        clock = asyncio.get_running_loop().time
        if error.sqlstate != driver_errors.READ_ONLY:
            return False
        if start > self._standby_time:
            if clock() < self._standby_time + STANDBY_RECONNECT_INTERVAL:
                return False
            log.warning("the database server accepts no writes: reconnecting")
            self._standby_time = clock()
            self.pool.replace_all(start)
        await self.pool.wait_until_replaced()
        return True

    def _translate(self, name: str, error: psycopg.Error) -> Exception:
        """Returns what to raise for an error of the database: the error itself if it is our fault."""
        api_error = driver_errors.to_api_error(error.sqlstate)
        if api_error is None:
            return error
        self.readiness.note_refused_write(error)
        hint = driver_errors.HINTS.get(error.sqlstate or "")
        log_error(f"{name}: {api_error.text} (SQLSTATE {error.sqlstate}{f'; {hint}' if hint else ''})")
        return api_error
