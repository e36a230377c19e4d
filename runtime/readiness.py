"""Whether a service can use its database: checked from time to time, for the service's health and log."""

import asyncio
import logging
import re
from typing import LiteralString

import psycopg
from psycopg import AsyncConnection, errors

from runtime import driver_errors
from runtime.connection import Connection, cut_after
from runtime.credentials import is_login_refused
from runtime.errors import ApiError
from runtime.health import LastingProblem
from runtime.pool import Pool
from runtime.schema import RECORD, Schema

log = logging.getLogger(__name__)

MIN_POSTGRESQL_VERSION = 17
"""The oldest major version of PostgreSQL that the statements work on."""

CHECK_ACQUIRE_TIMEOUT = 2.0
"""Seconds that a check waits for a connection of the pool, before it opens a connection of its own."""

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

    def note_refused_write(self, error: psycopg.Error) -> None:
        """Remembers that the database accepts no writes, until the write probe succeeds."""
        if self._write_probe and driver_errors.is_write_refusal(error):
            self._write_refusal = error.sqlstate

    def check_writes(self) -> None:
        """Checks that the database is not known to refuse writes.

        Raises:
            ApiError: What a write would raise.
        """
        if refusal := driver_errors.to_api_error(self._write_refusal):
            raise refusal

    async def check(self, schema: Schema) -> str:
        """Returns why the database cannot be used, as one line for the log; empty if it can.

        Args:
            schema: The schema that the service needs.
        """
        pool = self._pool
        try:
            connection = await pool.acquire(min(CHECK_ACQUIRE_TIMEOUT, pool.timeout))
            try:
                version = connection.info.server_version // 10_000
                if version < MIN_POSTGRESQL_VERSION:
                    return f"the database is PostgreSQL {version}; {MIN_POSTGRESQL_VERSION} or newer is needed"
                with cut_after(connection, pool.timeout):
                    problem = schema.check(await (await connection.execute(RECORD)).fetchall())
                self._was_usable = not problem
                pool.is_down = False
                if self._write_refusal:
                    await self._probe_writes(connection)
                return problem
            finally:
                pool.release(connection)
        except errors.UndefinedTable:
            pool.is_down = False
            return f"the schema is missing; version {schema.version} is needed"
        except (psycopg.Error, ApiError):
            return await self._diagnose()

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

    async def _diagnose(self) -> str:
        """Returns why no connection can be made, which the pool does not reveal; empty if the pool is only busy."""
        pool, problem = self._pool, ""
        try:
            async with asyncio.timeout(pool.timeout):
                connection = await AsyncConnection.connect(pool.conninfo())
                await connection.close()
        except psycopg.Error as error:
            if self._was_usable and _NO_SLOT.search(str(error)) and not pool.waits_for_database():
                return ""  # the server has no slot beyond the connections that we use already
            problem = "the database is unavailable: " + " ".join(str(error).split())
            if isinstance(error, psycopg.OperationalError) and is_login_refused(error):
                problem = LastingProblem(problem)
        except TimeoutError:
            problem = f"the database is unavailable: no response within {pool.timeout:g} s"
        pool.is_down = bool(problem)
        if problem:
            return problem
        # It responds, so this is overload. Being unready would only move the load to the other replicas.
        return "" if self._was_usable else "all connections to the database are busy"
