"""The service's PostgreSQL: a small fixed pool, one place that runs statements and translates the driver's errors."""

import asyncio
import logging
import os
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import count
from typing import Any, LiteralString, TypeVar

import psycopg
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from psycopg import AsyncConnection, errors
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from runtime import driver_errors
from runtime.config import DatabaseConfig
from runtime.credentials import ConnectionInfo, refused
from runtime.errors import ApiError, resource_exhausted, unavailable
from runtime.finish import finish
from runtime.health import LastingProblem
from runtime.schema import RECORD, Schema

log = logging.getLogger(__name__)
tracer = trace.get_tracer("shop.database")

Row = TypeVar("Row")

OLDEST_VERSION = 17
"""The oldest PostgreSQL major version that the statements are written for."""

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

AWAY = 1.0
"""Seconds that a call waits for a connection while the database is known to be away. Callers try again, and the edge
for its clients too: what each waits adds up, and they must not pile up."""

LOOK = 2.0
"""Seconds that a look at the database waits for a connection, before it asks for one of its own."""

STANDBY_PAUSE = 5.0
"""Seconds between two searches for another server because the present one takes no writes."""

RECONNECT = 2.0
"""Seconds for which a lost connection is replaced by itself. After them each call, and each look at the readiness,
tries anew: the pool's own attempts would be twice as far apart each time, and find a database minutes late."""


LIFETIME = 6 * 3600.0
"""Seconds after which a connection is replaced, less up to a twentieth by chance. Its successor cannot be had while a
rotated password has not come to us yet, for a minute or so: with so long a life hardly one ends in such a minute."""


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


@contextmanager
def answering(connection: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cuts the connection if the block takes longer: it fails with an OperationalError then.

    Where the other end is gone without a word, a statement waits for ever. To cancel it is no way out: the driver has
    the server end it first, over the same dead path.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: AsyncConnection[Any]) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        log.warning("the database does not answer: cutting the connection")
        end.shutdown(socket.SHUT_RDWR)


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
        service does: after a write was refused it is tried, and rolled back, until the database takes it (see `admit`).
        """
        self._write_probe = write_probe
        self._write_refusal: str | None = None
        self._timeout = config.timeout
        milliseconds = str(int(config.timeout * 1000))
        self._settings = {
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "timezone": "UTC",
            **(settings or {}),
        }
        self.conninfo = ConnectionInfo(config, application)
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            self.conninfo,
            open=False,
            min_size=config.pool_size,
            max_size=config.pool_size,
            timeout=config.timeout,
            reconnect_timeout=RECONNECT,
            max_lifetime=LIFETIME,
            kwargs={"autocommit": True, "prepare_threshold": 0},
            configure=self._configure,
            name=application,
        )
        # The queue stands before the pool: in the pool's own, those who have left keep their places until a connection
        # comes, and while it is full nobody has it try for one. A database that was away would never be found again.
        self._slots = asyncio.Semaphore(config.pool_size)
        self._most_waiting = config.pool_waiting
        self._waiting = 0
        self._sound = False
        self._away = False
        self._renewed = 0.0
        self._left_standby = -STANDBY_PAUSE
        self._renewals: set[asyncio.Task[None]] = set()

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        with answering(connection, self._timeout):
            await connection.execute(
                "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given (name, value)",
                (list(self._settings), list(self._settings.values())),
            )

    async def open(self) -> None:
        """Starts to connect; does not wait for the database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await asyncio.gather(*self._renewals, return_exceptions=True)
        await self._pool.close(timeout=5)

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
                        self._renew(began)
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

    async def _fetch_once(
        self, query: LiteralString, params: Mapping[str, object], row: type[Row], patience: float, replan: bool
    ) -> list[Row]:
        connection = await self._take(patience)
        life = asyncio.timeout(None)

        def left() -> None:
            with suppress(RuntimeError):  # the statement has ended
                life.reschedule(asyncio.get_running_loop().time() + GRACE)

        # A cancellation that met the return of the connection would lose it to the pool.
        return await finish(self._run(connection, life, query, params, row, replan), left)

    async def _run(
        self,
        connection: AsyncConnection[Any],
        life: asyncio.Timeout,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[Row],
        replan: bool,
    ) -> list[Row]:
        """Runs a statement for as long as `life` lasts, and gives the connection back in any case."""
        try:
            async with life, connection.cursor(row_factory=class_row(row)) as cursor:
                with answering(connection, self._timeout + MARGIN):
                    # What is not prepared has no plan to keep.
                    await cursor.execute(query, params, prepare=False if replan else None)
                return await cursor.fetchall() if cursor.description else []
        finally:
            await self._give_back(connection)

    async def _take(self, patience: float) -> AsyncConnection[Any]:
        """A connection of the pool, which has to be given back. `patience` is in seconds."""
        give_up = asyncio.get_running_loop().time() + max(min(patience, AWAY) if self._away else patience, 0.01)
        if self._slots.locked():
            self._check_queue()
            self._waiting += 1
            try:
                async with asyncio.timeout_at(give_up):
                    await self._slots.acquire()
            except TimeoutError:
                raise self._queue_timeout() from None
            finally:
                self._waiting -= 1
        else:
            await self._slots.acquire()
        try:
            return await self._pool.getconn(max(give_up - asyncio.get_running_loop().time(), 0.01))
        except BaseException as error:
            self._slots.release()
            if isinstance(error, PoolTimeout):
                raise unavailable("the database does not answer") from None
            if isinstance(error, PoolClosed):
                raise unavailable("the server is shutting down") from None
            raise

    def _queue_timeout(self) -> ApiError:
        """Why the queue did not move: those before wait for a connection too, or they have one and are slow."""
        if self._pool.get_stats().get("requests_waiting"):
            return unavailable("the database does not answer")
        # Not UNAVAILABLE: the edge would repeat it, and so add to what there is too much of.
        return resource_exhausted("too many calls are waiting")

    def _check_queue(self) -> None:
        if self._slots.locked() and self._waiting >= self._most_waiting:
            raise resource_exhausted("too many calls are waiting")

    async def admit(self) -> None:
        """Raises what `fetch` would, as far as it is known: for those who do something elsewhere first, which would be
        in vain then. It costs the database nothing."""
        self._check_queue()
        if refusal := driver_errors.answer(self._write_refusal):
            raise refusal
        if self._away:
            await self._give_back(await self._take(AWAY))

    async def _give_back(self, connection: AsyncConnection[Any]) -> None:
        try:
            await self._pool.putconn(connection)
        finally:
            self._slots.release()

    def _renew(self, began: float) -> None:
        """Has the pool replace all connections after one was lost, rather than let each fail a call; once, for those
        that were in use from before."""
        if began > self._renewed:
            self._renewed = asyncio.get_running_loop().time()
            task = asyncio.create_task(self._pool.drain())
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)

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
            self._renew(began)
        if self._renewals:
            await asyncio.wait(self._renewals)
        return True

    def _answer(self, name: str, error: psycopg.Error) -> Exception:
        """What the caller is told of an error that the database answered with; the error itself where it is a fault of
        ours."""
        answer = driver_errors.answer(error.sqlstate)
        if answer is None:
            return error
        if self._write_probe and driver_errors.is_write_refusal(error):
            self._write_refusal = error.sqlstate
        log.warning("%s: %s (SQLSTATE %s)", name, answer.text, error.sqlstate)
        return answer

    async def problem(self, schema: Schema) -> str:
        """What keeps the database from being used, in one line for the log; empty when nothing does.

        `schema` is what the service needs.
        """
        try:
            connection = await self._take(min(LOOK, self._timeout))
            try:
                version = connection.info.server_version // 10_000
                if version < OLDEST_VERSION:
                    return f"the database is PostgreSQL {version}; {OLDEST_VERSION} or newer is needed"
                with answering(connection, self._timeout):
                    found = schema.check(await (await connection.execute(RECORD)).fetchall())
                self._sound = not found
                self._away = False
                if self._write_refusal:
                    await self._probe_writes(connection)
                return found
            finally:
                await self._give_back(connection)
        except errors.UndefinedTable:
            self._away = False
            return f"the schema is missing; version {schema.version} is needed"
        except (psycopg.Error, ApiError):
            return await self._refusal()

    async def _probe_writes(self, connection: AsyncConnection[Any]) -> None:
        """Finds out whether the database takes writes again."""
        try:
            with answering(connection, self._timeout):
                async with connection.transaction(force_rollback=True):
                    await connection.execute(self._write_probe)
        except psycopg.Error as error:
            if not driver_errors.is_write_refusal(error):
                raise
        else:
            log.info("the database takes writes again")
            self._write_refusal = None

    async def _refusal(self) -> str:
        """Why no connection can be had, which the pool keeps to itself; empty when it is only busy."""
        found = ""
        try:
            async with asyncio.timeout(self._timeout):
                connection = await AsyncConnection.connect(self.conninfo())
                await connection.close()
        except psycopg.Error as error:
            found = "the database does not answer: " + " ".join(str(error).split())
            if isinstance(error, psycopg.OperationalError) and refused(error):
                found = LastingProblem(found)
        except TimeoutError:
            found = f"the database does not answer within {self._timeout:g} s"
        self._away = bool(found)
        if found:
            return found
        # It answers, so this is overload: to leave the others alone with it would only make more.
        return "" if self._sound else "all connections to the database are busy"
