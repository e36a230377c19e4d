"""The service's PostgreSQL: a small fixed pool, one place that runs statements and translates the driver's errors."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, LiteralString, TypeVar

import psycopg
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from psycopg import AsyncConnection, errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from runtime.config import ConfigError, DatabaseConfig
from runtime.errors import ApiError, resource_exhausted, unavailable

log = logging.getLogger(__name__)
tracer = trace.get_tracer("shop.database")

Row = TypeVar("Row")

OLDEST_VERSION = 17
"""The oldest PostgreSQL major version that the statements are written for."""

RETRIES = 4
"""How often a statement that lost a race (or its connection) is tried again."""


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


def connection_info(config: DatabaseConfig, application: str) -> str:
    """The connection string with what every connection of ours needs. Times are in seconds, tcp_user_timeout in ms."""
    try:
        return make_conninfo(
            config.conninfo,
            application_name=application,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
        )
    except psycopg.ProgrammingError:
        raise ConfigError("DATABASE_URL must be a PostgreSQL connection string or URI") from None


class Database:
    """Runs statements, each a transaction of its own, and rarely several in one."""

    def __init__(self, config: DatabaseConfig, application: str) -> None:
        self._timeout = config.timeout
        self.conninfo = connection_info(config, application)
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            self.conninfo,
            open=False,
            min_size=config.pool_size,
            max_size=config.pool_size,
            max_waiting=config.pool_waiting,
            timeout=config.timeout,
            reconnect_timeout=float("inf"),
            kwargs={"autocommit": True, "prepare_threshold": 0},
            configure=self._configure,
            name=application,
        )
        self._repairs: set[asyncio.Task[None]] = set()

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        milliseconds = str(int(self._timeout * 1000))
        await connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false),"
            " set_config('timezone', 'UTC', false)",
            (milliseconds, milliseconds),
        )

    async def open(self) -> None:
        """Starts to connect; does not wait for the database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        for repair in self._repairs:
            repair.cancel()
        await self._pool.close(timeout=5)

    async def fetch(
        self,
        name: LiteralString,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[Row],
        *,
        idempotent: bool = True,
    ) -> list[Row]:
        """Runs one statement as one transaction; its rows as instances of the dataclass `row`.

        A deadlock or serialization failure is retried; so is a lost connection, where `idempotent` says that running
        the statement twice is the same as once. Raises ConstraintViolation, or an ApiError for what passes.
        """
        with _span(name, query):
            for attempt in range(RETRIES + 1):
                try:
                    return await self._fetch_once(query, params, row)
                except (errors.SerializationFailure, errors.DeadlockDetected):
                    if attempt == RETRIES:
                        raise unavailable("the database is busy", 0.2) from None
                    await asyncio.sleep(0.01 * 2**attempt)
                except errors.QueryCanceled:
                    raise unavailable("the database took too long") from None
                except (errors.UndefinedTable, errors.UndefinedColumn):
                    log.warning("the schema is not there yet", exc_info=True)
                    raise unavailable("the database is not ready") from None
                except psycopg.IntegrityError as error:
                    raise ConstraintViolation(error.diag.constraint_name or "") from None
                except psycopg.OperationalError as error:
                    log.warning("database connection lost: %s", error.sqlstate or type(error).__name__)
                    self._repair()
                    if attempt == RETRIES or not idempotent:
                        raise unavailable("the database does not answer") from None
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

    async def _fetch_once(self, query: LiteralString, params: Mapping[str, object], row: type[Row]) -> list[Row]:
        async with self._connection() as connection, connection.cursor(row_factory=class_row(row)) as cursor:
            try:
                await cursor.execute(query, params)
            except errors.ReadOnlySqlTransaction:
                # A failover has made a standby of this server: leave it, and find the new primary.
                await connection.close()
                raise psycopg.OperationalError("the server is a standby") from None
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        try:
            connection = await self._pool.getconn()
        except PoolTimeout:
            raise unavailable("the database does not answer") from None
        except TooManyRequests:
            raise resource_exhausted("too many calls are waiting") from None
        except PoolClosed:
            raise unavailable("the server is shutting down") from None
        try:
            yield connection
        finally:
            await self._pool.putconn(connection)

    def _repair(self) -> None:
        """Has the pool replace its other broken connections too, rather than let each fail a call."""
        if not self._repairs:
            task = asyncio.create_task(self._pool.check())
            self._repairs.add(task)
            task.add_done_callback(self._repairs.discard)

    async def problem(self, schema: int) -> str:
        """What keeps the database from being used, in one line for the log; empty when nothing does.

        `schema` is the newest migration that the service needs.
        """
        try:
            async with asyncio.timeout(self._timeout), self._connection() as connection:
                version = connection.info.server_version // 10_000
                if version < OLDEST_VERSION:
                    return f"the database is PostgreSQL {version}; {OLDEST_VERSION} or newer is needed"
                row = await (await connection.execute("SELECT max(version) FROM schema_migration")).fetchone()
                found = (row[0] if row else None) or 0
                return "" if found >= schema else f"the schema is at version {found}; {schema} is needed"
        except errors.UndefinedTable:
            return f"the schema is missing; version {schema} is needed"
        except (psycopg.Error, ApiError, TimeoutError):
            return await self._refusal()

    async def _refusal(self) -> str:
        """Why no connection can be had: the pool keeps the reason to itself."""
        try:
            async with asyncio.timeout(self._timeout):
                connection = await AsyncConnection.connect(self.conninfo)
                await connection.close()
        except psycopg.Error as error:
            return "the database does not answer: " + " ".join(str(error).split())
        except TimeoutError:
            return f"the database does not answer within {self._timeout:g} s"
        return "all connections to the database are busy"
