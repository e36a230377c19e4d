"""Whether a service can work with its database: looked at from time to time, for its health and its log."""

import asyncio
import logging
import re
from typing import LiteralString

import psycopg
from psycopg import AsyncConnection, errors

from runtime import driver_errors
from runtime.connection import Connection, answering
from runtime.credentials import refused
from runtime.errors import ApiError
from runtime.health import LastingProblem
from runtime.pool import Pool
from runtime.schema import RECORD, Schema

log = logging.getLogger(__name__)

OLDEST_VERSION = 17
"""The oldest PostgreSQL major version that the statements are written for."""

LOOK = 2.0
"""Seconds that a look at the database waits for a connection, before it asks for one of its own."""


_NO_SLOT = re.compile(r"too many (clients|connections)|remaining connection slots")
"""libpq keeps the SQLSTATE of a refused connection to itself. In another language it counts as an outage."""


class Readiness:
    """What is known of the database of a pool."""

    def __init__(self, pool: Pool, write_probe: LiteralString) -> None:
        """`write_probe` is a statement that writes as the service does; empty: refused writes are not remembered."""
        self._pool = pool
        self._write_probe = write_probe
        self._write_refusal: str | None = None
        self._sound = False

    def note_refused_write(self, error: psycopg.Error) -> None:
        """Remembers that the database takes no writes, until the probe says otherwise."""
        if self._write_probe and driver_errors.is_write_refusal(error):
            self._write_refusal = error.sqlstate

    def check_writes(self) -> None:
        """Raises what a write would, where it is known to be refused."""
        if refusal := driver_errors.answer(self._write_refusal):
            raise refusal

    async def check(self, schema: Schema) -> str:
        """What keeps the database from being used, in one line for the log; empty when nothing does.

        `schema` is what the service needs.
        """
        pool = self._pool
        try:
            connection = await pool.take(min(LOOK, pool.timeout))
            try:
                version = connection.info.server_version // 10_000
                if version < OLDEST_VERSION:
                    return f"the database is PostgreSQL {version}; {OLDEST_VERSION} or newer is needed"
                with answering(connection, pool.timeout):
                    found = schema.check(await (await connection.execute(RECORD)).fetchall())
                self._sound = not found
                pool.away = False
                if self._write_refusal:
                    await self._probe_writes(connection)
                return found
            finally:
                pool.give_back(connection)
        except errors.UndefinedTable:
            pool.away = False
            return f"the schema is missing; version {schema.version} is needed"
        except (psycopg.Error, ApiError):
            return await self._refusal()

    async def _probe_writes(self, connection: Connection) -> None:
        """Finds out whether the database takes writes again."""
        try:
            with answering(connection, self._pool.timeout):
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
        pool, found = self._pool, ""
        try:
            async with asyncio.timeout(pool.timeout):
                connection = await AsyncConnection.connect(pool.conninfo())
                await connection.close()
        except psycopg.Error as error:
            if self._sound and _NO_SLOT.search(str(error)) and not pool.starves():
                return ""  # it has none for us beyond those that are busy
            found = "the database does not answer: " + " ".join(str(error).split())
            if isinstance(error, psycopg.OperationalError) and refused(error):
                found = LastingProblem(found)
        except TimeoutError:
            found = f"the database does not answer within {pool.timeout:g} s"
        pool.away = bool(found)
        if found:
            return found
        # It answers, so this is overload: to leave the others alone with it would only make more.
        return "" if self._sound else "all connections to the database are busy"
