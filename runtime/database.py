"""The service's PostgreSQL: the one place that runs statements, and says what became of them in the API's errors."""

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import count
from typing import LiteralString, TypeVar

import psycopg
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from psycopg import AsyncCursor

from runtime import driver_errors
from runtime.config import DatabaseConfig
from runtime.connection import Connection, answering, cut
from runtime.errors import unavailable
from runtime.pool import SET_IN_TRANSACTION, Pool, Settings
from runtime.readiness import Readiness
from runtime.rows import rows_of
from runtime.shielded import run_shielded

log = logging.getLogger(__name__)
tracer = trace.get_tracer("shop.database")

Row = TypeVar("Row")

RETRIES = 4
"""How often a statement that lost its connection is tried again."""

BACKOFF = (0.01, 0.2)
"""Seconds until a statement that lost a race (a deadlock, a serialization failure) is tried again, the first time and
at most; it is tried until the call's time is over, since what lost has changed nothing."""

GRACE = 0.2
"""Seconds that a statement gets to end by itself when its caller is gone: nearly all do, and to cancel one costs the
server a connection. After them it is cancelled in the database."""

MARGIN = 1.0
"""Seconds that a statement gets beyond its timeout, for the server's own word on it to arrive."""

ONE_PROCESSOR = {"max_parallel_workers_per_gather": "0"}
"""Settings for a pool of searches: they keep no more processors of the database busy than it has connections."""

STANDBY_PAUSE = 5.0
"""Seconds between two searches for another server because the present one takes no writes."""


def _span(name: str, query: str) -> AbstractContextManager[object]:
    """A span of the call that runs the statement; the looks that background jobs take every second have none."""
    if not trace.get_current_span().get_span_context().is_valid:
        return nullcontext()
    attributes = {"db.system.name": "postgresql", "db.query.text": query}
    return tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes)


class ConstraintViolation(Exception):
    """A statement met a constraint; the store knows what its name means."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _NoRow:
    """The rows of a statement that returns none."""


class Database:
    """Runs statements, each a transaction of its own, and rarely several in one."""

    def __init__(
        self,
        config: DatabaseConfig,
        application: str,
        settings: Mapping[str, str] | None = None,
        *,
        write_probe: LiteralString = "",
    ) -> None:
        """`settings` are PostgreSQL's, by name, for each statement. `write_probe` is a statement that writes as the
        service does: after a write was refused it is tried, and rolled back, until the database takes it (see
        `check_admission`).
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
        self._left_standby = -STANDBY_PAUSE
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
        """Runs one statement as one transaction; its rows as instances of the dataclass `row`.

        `replan` is for a statement whose best plan depends on its parameters: it is planned for them each time, where
        others are planned for any after some runs.

        A deadlock or serialization failure is retried; so is a lost connection, where `idempotent` says that running
        the statement twice is the same as once, and while the time to wait for a connection is not over. Raises
        ConstraintViolation, or an ApiError for what passes.

        gRPC cancels a handler when its caller's deadline passes. A call that waits for a connection leaves the queue
        then; a statement that runs is ended in the database after GRACE, whole or not at all.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout
        with _span(name, query):
            for attempt in count():
                began = clock()
                try:
                    return await self._fetch_once(query, params, row, deadline - began, replan)
                except psycopg.IntegrityError as error:
                    raise ConstraintViolation(error.diag.constraint_name or "") from None
                except psycopg.Error as error:
                    if driver_errors.is_race(error):
                        # Of those who met, each comes back at another time.
                        pause = min(BACKOFF[0] * 2**attempt, BACKOFF[1]) * random.uniform(0.5, 1)  # noqa: S311 - no secret
                        if clock() + pause >= deadline:
                            raise unavailable("the database is busy", 0.2) from None
                        await asyncio.sleep(pause)
                    elif driver_errors.is_connection_lost(error):
                        log.warning("database connection lost: %s", error.sqlstate or type(error).__name__)
                        self._pool.renew(began)
                        if attempt >= RETRIES or not idempotent or clock() >= deadline:
                            raise unavailable("the database does not answer") from None
                    elif not await self._leave_standby(error, began):
                        raise self._answer(name, error) from None
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
        """As `fetch`, for at most one row."""
        rows = await self.fetch(name, query, params, row, idempotent=idempotent)
        return rows[0] if rows else None

    async def execute(
        self, name: LiteralString, query: LiteralString, params: Mapping[str, object], *, idempotent: bool = True
    ) -> None:
        """As `fetch`, for a statement that returns no rows."""
        await self.fetch(name, query, params, _NoRow, idempotent=idempotent)

    async def _fetch_once(
        self, query: LiteralString, params: Mapping[str, object], row: type[Row], timeout: float, replan: bool
    ) -> list[Row]:
        connection = await self._pool.take(timeout)
        if self._pool.statement_settings:
            return await self._behind_pooler(connection, self._pool.statement_settings, query, params, row)
        timer = asyncio.get_running_loop().call_later(self._timeout + MARGIN, cut, connection)
        connection.leaves_unfinished = True
        try:
            cursor = connection.cursor(row_factory=rows_of(row))
            # What is not prepared has no plan to keep.
            await cursor.execute(query, params, prepare=False if replan else None)
            return await _rows(cursor)
        finally:
            if connection.unfinished:
                self._pool.leave(connection, GRACE, timer)
            else:
                timer.cancel()
                connection.leaves_unfinished = False
                self._pool.give_back(connection)

    async def _behind_pooler(
        self,
        connection: Connection,
        settings: Settings,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[Row],
    ) -> list[Row]:
        """Runs a statement in one transaction, and one round trip, with the settings, which end with it."""
        life = asyncio.timeout(None)

        async def run() -> list[Row]:
            try:
                async with life, connection.cursor(row_factory=rows_of(row)) as cursor:
                    with answering(connection, self._timeout + MARGIN):
                        async with connection.pipeline():
                            await connection.execute(SET_IN_TRANSACTION, settings)
                            await cursor.execute(query, params)
                    return await _rows(cursor)
            finally:
                self._pool.give_back(connection)

        def left() -> None:
            with suppress(RuntimeError):  # the statement has ended
                life.reschedule(asyncio.get_running_loop().time() + GRACE)

        # A pipeline that is left unfinished cannot be finished by somebody else.
        return await run_shielded(run(), left)

    async def check_admission(self) -> None:
        """Raises what `fetch` would, as far as it is known: for those who do something elsewhere first, which would be
        in vain then. It costs the database nothing."""
        self._pool.check_queue()
        self._readiness.check_writes()
        if self._pool.away:
            self._pool.give_back(await self._pool.take(self._timeout))

    async def _leave_standby(self, error: psycopg.Error, began: float) -> bool:
        """Returns whether a statement that `began` then is to run again because its server takes no writes: since a
        failover another one does. Nothing was written. Where new connections are refused too, the database is
        read-only: all of it, and for everybody."""
        clock = asyncio.get_running_loop().time
        if error.sqlstate != driver_errors.READ_ONLY:
            return False
        if began > self._left_standby:
            if clock() < self._left_standby + STANDBY_PAUSE:
                return False
            log.warning("the database server takes no writes: connecting anew")
            self._left_standby = clock()
            self._pool.renew(began)
        await self._pool.renewed()
        return True

    def _answer(self, name: str, error: psycopg.Error) -> Exception:
        """What the caller is told of an error that the database answered with; the error itself where it is a fault of
        ours."""
        answer = driver_errors.answer(error.sqlstate)
        if answer is None:
            return error
        self._readiness.note_refused_write(error)
        hint = driver_errors.HINTS.get(error.sqlstate or "")
        log.warning("%s: %s (SQLSTATE %s%s)", name, answer.text, error.sqlstate, f"; {hint}" if hint else "")
        return answer


async def _rows(cursor: AsyncCursor[Row]) -> list[Row]:
    result = cursor.pgresult
    return await cursor.fetchall() if result and result.nfields else []
