"""Brings the schema of a database up to date while a shop runs on it.

It applies the missing migrations, in order and under a lock.

A statement that needs an exclusive lock on a table waits for readers (a report, a dump), and blocks everybody who comes
later meanwhile. So it waits for LOCK_TIMEOUT only, gives up, lets the others pass, and tries again.

Migrations are compatible with the previous release, so that old and new processes can run at the same time. An older
program finds that its newest migration is applied and does nothing, which a rollback relies on.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import TupleRow

from runtime.backoff import Backoff
from runtime.connecting import connect
from runtime.credentials import Conninfo, resolve
from runtime.logs import LogOnce
from runtime.readiness import MIN_POSTGRESQL_VERSION
from runtime.schema import RECORD, Migration, MigrationError, Schema, Statement, migrations

log = logging.getLogger(__name__)

LOCK_TIMEOUT = 2.0
"""Seconds that a statement waits for a lock, and others behind it, before it gives up and tries again."""

LOCK_PAUSES = (0.5, 10.0)
"""The first and the longest pause between two attempts, in seconds. In a pause the calls that were blocked run."""

MAX_WAIT = 600.0
"""Seconds after which it is an error that others hold a lock."""

MIGRATION_LOCK_POLL_INTERVAL = 0.2
"""Seconds between two attempts to be the only program that migrates."""

BLOCKER_POLL_INTERVAL = 1.0
"""Seconds between two queries for the sessions that hold a lock."""

CONNECT_INTERVAL = 0.5
"""Seconds between two attempts to connect to the database."""

_ADVISORY_LOCK = 0x53484F50
"""The key of the advisory lock of all migrations: `SHOP` in ASCII."""

_RECORD_TABLE = "the table schema_migration"

_LOCK_ERRORS = (errors.LockNotAvailable, errors.DeadlockDetected)


async def migrate(
    conninfo: Conninfo,
    directory: Path,
    *,
    wait: float = 60,
    lock_timeout: float = LOCK_TIMEOUT,
    max_wait: float = MAX_WAIT,
) -> list[int]:
    """Applies the missing migrations.

    Args:
        conninfo: Where the database is.
        directory: Where the migrations are.
        wait: Seconds to wait for the database, and for credentials that it accepts.
        lock_timeout: Seconds that a statement waits for a lock before it gives up and tries again.
        max_wait: Seconds to wait for each lock that others hold.

    Returns:
        The versions that were applied.

    Raises:
        MigrationError: The schema cannot be brought up to date. The message is one line for people.
    """
    wanted = migrations(directory)
    connection = await _connect(conninfo, wait)
    try:
        async with connection:
            return await _Run(conninfo, connection, lock_timeout, max_wait).apply(wanted)
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


@dataclass(frozen=True)
class _Run:
    """One run of `migrate` on an open connection."""

    conninfo: Conninfo
    connection: AsyncConnection[TupleRow]
    lock_timeout: float
    max_wait: float

    async def apply(self, wanted: Sequence[Migration]) -> list[int]:
        """Applies those of the migrations that the database lacks; returns their versions."""
        self._check_server()
        # Timeouts that an operator has set for the role are meant for calls.
        await self.connection.execute(
            "SELECT set_config('statement_timeout', '0', false), set_config('transaction_timeout', '0', false),"
            " set_config('idle_in_transaction_session_timeout', '0', false)"
        )
        await self._acquire_migration_lock()
        applied = await self._record()
        if problem := Schema([each.name for each in wanted]).check_owner(applied.items()):
            raise MigrationError(problem)
        missing = [each for each in wanted if each.version not in applied]
        if not applied:
            await self._attempt(_RECORD_TABLE, self._create_record)
        await self._compare([each for each in wanted if each.version in applied])
        for each in missing:
            try:
                await self._apply_one(each)
            except psycopg.Error as error:
                raise MigrationError(f"migration {each.name}: {_one_line(error)}") from None
            log.info("applied migration %s", each.name)
        return [each.version for each in missing]

    def _check_server(self) -> None:
        version = self.connection.info.server_version // 10_000
        if version < MIN_POSTGRESQL_VERSION:
            raise MigrationError(f"the database is PostgreSQL {version}; {MIN_POSTGRESQL_VERSION} or newer is needed")
        encoding = self.connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise MigrationError(f"the encoding of the database is {encoding}; create it with ENCODING 'UTF8'")

    async def _acquire_migration_lock(self) -> None:
        """Waits until no other program migrates.

        It polls for the lock. Waiting in a statement would hold a snapshot, and an index that is built concurrently
        waits for the end of all older snapshots.
        """
        deadline = time.monotonic() + self.max_wait
        log_once = LogOnce(log, logging.INFO)
        while True:
            row = await (await self.connection.execute("SELECT pg_try_advisory_lock(%s)", (_ADVISORY_LOCK,))).fetchone()
            if row and row[0]:
                return
            if time.monotonic() >= deadline:
                raise MigrationError(f"another migration has run for more than {self.max_wait:g} s")
            log_once("waiting for another migration to end")
            await asyncio.sleep(MIGRATION_LOCK_POLL_INTERVAL)

    async def _record(self) -> dict[int, str]:
        """Returns the names of the applied migrations, by version."""
        exists = await (await self.connection.execute("SELECT to_regclass('schema_migration')")).fetchone()
        if not exists or exists[0] is None:
            return {}
        return dict(await (await self.connection.execute(RECORD)).fetchall())

    async def _create_record(self) -> None:
        await self._execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (version integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now(), checksum text)"
        )

    async def _compare(self, applied: Sequence[Migration]) -> None:
        """Refuses a file that was changed after it was applied; fills in a missing checksum."""
        has_checksum = await self.connection.execute(
            "SELECT 1 FROM pg_attribute WHERE attrelid = 'schema_migration'::regclass AND attname = 'checksum'"
        )
        if not await has_checksum.fetchone():
            # Older programs name the columns that they use, so an additional one does not disturb them.
            add = partial(self._execute, "ALTER TABLE schema_migration ADD COLUMN checksum text")
            await self._attempt(_RECORD_TABLE, add)
        rows = await (await self.connection.execute("SELECT version, checksum FROM schema_migration")).fetchall()
        recorded: dict[int, str | None] = dict(rows)
        for each in applied:
            if recorded[each.version] is None:
                await self.connection.execute(
                    "UPDATE schema_migration SET checksum = %s WHERE version = %s", (each.checksum, each.version)
                )
            elif recorded[each.version] != each.checksum:
                raise MigrationError(
                    f"{each.name}.sql has changed since it was applied to this database: a released migration must not "
                    "be edited; restore it, and add a new one"
                )

    async def _apply_one(self, migration: Migration) -> None:
        what = f"migration {migration.name}"
        if migration.statements is None:
            await self._attempt(what, partial(self._in_transaction, migration))
            return
        for each in migration.statements:
            await self._attempt(what, partial(self._alone, each))
        await self._remember(migration)

    async def _in_transaction(self, migration: Migration) -> None:
        async with self.connection.transaction():
            await self._execute(migration.text)
            await self._remember(migration)

    async def _remember(self, migration: Migration) -> None:
        await self.connection.execute(
            "INSERT INTO schema_migration (version, name, checksum) VALUES (%s, %s, %s)",
            (migration.version, migration.name, migration.checksum),
        )

    async def _alone(self, statement: Statement) -> None:
        if statement.index:
            await self._drop_invalid(statement.index)
        # A concurrent statement blocks nobody, and giving up would discard what it has built.
        await self._execute(statement.text, self.max_wait if statement.concurrent else self.lock_timeout)

    async def _drop_invalid(self, index: str) -> None:
        """Drops the index if a failed attempt has left it invalid: it would slow down writes and serve no reads."""
        invalid = await self.connection.execute(
            "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid", (index,)
        )
        if await invalid.fetchone():
            log.info("dropping the invalid index %s of a failed attempt", index)
            name = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index.strip('"')))
            await self._execute(name.as_string(), self.max_wait)

    async def _execute(self, text: str, lock_timeout: float | None = None) -> None:
        milliseconds = str(int((lock_timeout or self.lock_timeout) * 1000))
        await self.connection.execute("SELECT set_config('lock_timeout', %s, false)", (milliseconds,))
        # The text is from a file of this project; nothing in it is input.
        await self.connection.execute(text.encode())

    async def _attempt(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Runs a step again and again until it gets its locks."""
        deadline = time.monotonic() + self.max_wait
        backoff = Backoff(*LOCK_PAUSES)
        while True:
            try:
                async with self._blockers_logged(what):
                    return await step()
            except _LOCK_ERRORS as error:
                pause = backoff.next()
                if time.monotonic() + pause >= deadline:
                    raise MigrationError(
                        f"{what} did not get its locks within {self.max_wait:g} s: {_one_line(error)}"
                    ) from None
                log.info("%s did not get its locks; retrying for up to %d s", what, deadline - time.monotonic())
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _blockers_logged(self, what: str) -> AsyncGenerator[None]:
        """Logs the sessions that the block waits for in the database."""
        task = asyncio.create_task(self._log_blockers(what))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _log_blockers(self, what: str) -> None:
        await asyncio.sleep(min(BLOCKER_POLL_INTERVAL, self.lock_timeout / 2))
        log_once = LogOnce(log, logging.INFO)
        async with await AsyncConnection.connect(resolve(self.conninfo), autocommit=True) as connection:
            while True:
                rows = await connection.execute(
                    "SELECT format('session %%s (%%s, user %%s)', pid, coalesce(nullif(application_name, ''), '?'),"
                    " usename) FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(%s)) ORDER BY pid",
                    (self.connection.info.backend_pid,),
                )
                blockers = ", ".join(str(row[0]) for row in await rows.fetchall())
                if blockers:
                    log_once(f"{what} waits for locks that others hold: {blockers}")
                await asyncio.sleep(BLOCKER_POLL_INTERVAL)


def _one_line(error: psycopg.Error) -> str:
    """Returns the message of the database, and its hint, on one line."""
    parts = [error.diag.message_primary or str(error), error.diag.message_hint or ""]
    return ": ".join(" ".join(part.split()) for part in parts if part)


async def _connect_once(conninfo: Conninfo, **parameters: Any) -> AsyncConnection[TupleRow]:
    return await AsyncConnection.connect(resolve(conninfo), autocommit=True, **parameters)


async def _connect(conninfo: Conninfo, wait: float) -> AsyncConnection[TupleRow]:
    deadline = time.monotonic() + wait
    waiting = False
    while True:
        try:
            return await connect(partial(_connect_once, conninfo))
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            if time.monotonic() >= deadline:
                raise MigrationError(f"the database is unavailable: {reason}") from None
            if not waiting:
                log.info("waiting for the database: %s", reason)
                waiting = True
            await asyncio.sleep(CONNECT_INTERVAL)
