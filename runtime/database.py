"""The service's PostgreSQL: the one place that runs statements, retries them and translates their errors."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import count
from typing import LiteralString, TypeVar

import psycopg
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from psycopg import AsyncCursor

from runtime import driver_errors
from runtime.backoff import Backoff
from runtime.config import DatabaseConfig
from runtime.connection import Connection, cut, cut_after
from runtime.errors import database_unavailable, unavailable
from runtime.pool import SET_IN_TRANSACTION, Pool, Settings
from runtime.readiness import Readiness
from runtime.rows import rows_of
from runtime.shielded import run_shielded

log = logging.getLogger(__name__)
tracer = trace.get_tracer("shop.database")

Row = TypeVar("Row")

MAX_CONNECTION_RETRIES = 4
"""How often a statement that lost its connection is retried."""

RACE_PAUSES = (0.01, 0.2)
"""The first and the longest pause, in seconds, before a statement that lost a race (a deadlock, a serialization
failure) is retried. It is retried as long as the call has time, since it has changed nothing."""

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


def _span(name: str, query: str) -> AbstractContextManager[object]:
    """Returns a span within the call that runs the statement. What background jobs poll every second has no span."""
    if not trace.get_current_span().get_span_context().is_valid:
        return nullcontext()
    attributes = {"db.system.name": "postgresql", "db.query.text": query}
    return tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes)


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
        self._pool = Pool(config, application, own | dict(settings or {}))
        self._readiness = Readiness(self._pool, write_probe)
        self._standby_time = -STANDBY_RECONNECT_INTERVAL
        """When another server was looked for last, by the clock of the event loop."""
        self.open = self._pool.open
        self.close = self._pool.close
        self.check = self._readiness.check

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
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout
        race_backoff: Backoff | None = None
        with _span(name, query):
            for attempt in count():
                start = clock()
                try:
                    return await self._fetch_once(query, params, row, deadline - start, replan)
                except psycopg.IntegrityError as error:
                    raise ConstraintViolation(error.diag.constraint_name or "") from None
                except psycopg.Error as error:
                    if driver_errors.is_race(error):
                        race_backoff = race_backoff or Backoff(*RACE_PAUSES)
                        pause = race_backoff.next()
                        if clock() + pause >= deadline:
                            raise unavailable("the database is busy", 0.2) from None
                        await asyncio.sleep(pause)
                    elif driver_errors.is_connection_lost(error):
                        log.warning("database connection lost: %s", error.sqlstate or type(error).__name__)
                        self._pool.replace_all(start)
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
        self, query: LiteralString, params: Mapping[str, object], row: type[Row], timeout: float, replan: bool
    ) -> list[Row]:
        connection = await self._pool.acquire(timeout)
        if self._pool.statement_settings:
            return await self._fetch_through_pooler(connection, self._pool.statement_settings, query, params, row)
        timer = asyncio.get_running_loop().call_later(self._timeout + CUT_MARGIN, cut, connection)
        connection.keep_running_on_cancel = True
        try:
            cursor = connection.cursor(row_factory=rows_of(row))
            # A statement that is not prepared is planned each time.
            await cursor.execute(query, params, prepare=False if replan else None)
            return await _rows(cursor)
        finally:
            if connection.abandoned:
                self._pool.release_abandoned(connection, CANCEL_DELAY, timer)
            else:
                timer.cancel()
                connection.keep_running_on_cancel = False
                self._pool.release(connection)

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
                            await connection.execute(SET_IN_TRANSACTION, settings)
                            await cursor.execute(query, params)
                    return await _rows(cursor)
            finally:
                self._pool.release(connection)

        def limit() -> None:
            with suppress(RuntimeError):  # the statement has ended
                time_limit.reschedule(asyncio.get_running_loop().time() + CANCEL_DELAY)

        # Another task could not finish an abandoned pipeline.
        return await run_shielded(run(), limit)

    async def check_admission(self) -> None:
        """Checks whether a write would be accepted, as far as that is known without asking the database.

        For callers that first do work elsewhere, which would be wasted if the write failed.

        Raises:
            ApiError: What `fetch` would raise.
        """
        self._pool.check_queue()
        self._readiness.check_writes()
        if self._pool.is_down:
            self._pool.release(await self._pool.acquire(self._timeout))

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
            self._pool.replace_all(start)
        await self._pool.wait_until_replaced()
        return True

    def _translate(self, name: str, error: psycopg.Error) -> Exception:
        """Returns what to raise for an error of the database: the error itself if it is our fault."""
        api_error = driver_errors.to_api_error(error.sqlstate)
        if api_error is None:
            return error
        self._readiness.note_refused_write(error)
        hint = driver_errors.HINTS.get(error.sqlstate or "")
        log.warning("%s: %s (SQLSTATE %s%s)", name, api_error.text, error.sqlstate, f"; {hint}" if hint else "")
        return api_error


async def _rows(cursor: AsyncCursor[Row]) -> list[Row]:
    result = cursor.pgresult
    return await cursor.fetchall() if result and result.nfields else []
