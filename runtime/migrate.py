"""Brings a database's schema up to date: applies the migrations that it lacks, in order and under a lock, while a shop
runs on it.

A statement that needs a table for itself blocks all who come later, for as long as it waits for somebody who reads (a
report, a dump). So it waits for LOCK_TIMEOUT only, gives up, lets the others pass, and is tried again.

Migrations are backward compatible by one version, so that old and new processes live side by side; an older program
finds its newest file applied already and does nothing, which is what a rollback needs.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import TupleRow

from runtime.credentials import Conninfo, resolve
from runtime.readiness import OLDEST_VERSION
from runtime.schema import RECORD, Migration, MigrationError, Schema, Statement, migrations

log = logging.getLogger(__name__)

LOCK_TIMEOUT = 2.0
"""Seconds that a statement waits for a lock, and others behind it, before it is tried again."""

BACKOFF = (0.5, 10.0)
"""Seconds between two attempts, the first time and at most: those who queued get their turn."""

MAX_WAIT = 600.0
"""Seconds after which a lock that others hold is an error."""

_LOCK = 0x53484F50
"""The advisory lock of all migrations: `SHOP` in ASCII."""

_RECORD = "the table schema_migration"

_LOST_RACE = (errors.LockNotAvailable, errors.DeadlockDetected)


async def migrate(
    conninfo: Conninfo,
    directory: Path,
    *,
    wait: float = 60,
    lock_timeout: float = LOCK_TIMEOUT,
    max_wait: float = MAX_WAIT,
) -> list[int]:
    """Applies what is missing and returns the versions applied.

    Waits up to `wait` seconds for the database, and for credentials that it accepts, and up to `max_wait` for each lock
    that others hold.

    Raises:
        MigrationError: with one line for people.
    """
    todo = migrations(directory)
    connection = await _connect(conninfo, wait)
    try:
        async with connection:
            return await _Run(conninfo, connection, lock_timeout, max_wait).apply(todo)
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


@dataclass(frozen=True)
class _Run:
    conninfo: Conninfo
    connection: AsyncConnection[TupleRow]
    lock_timeout: float
    max_wait: float

    async def apply(self, todo: Sequence[Migration]) -> list[int]:
        self._check_server()
        # What an operator has set for the role is meant for calls.
        await self.connection.execute(
            "SELECT set_config('statement_timeout', '0', false), set_config('transaction_timeout', '0', false),"
            " set_config('idle_in_transaction_session_timeout', '0', false)"
        )
        await self._take_turn()
        applied = await self._record()
        if problem := Schema([each.name for each in todo]).check_owner(applied.items()):
            raise MigrationError(problem)
        missing = [each for each in todo if each.version not in applied]
        if not applied:
            await self._attempt(_RECORD, self._create_record)
        await self._compare([each for each in todo if each.version in applied])
        for each in missing:
            try:
                await self._apply_one(each)
            except psycopg.Error as error:
                raise MigrationError(f"migration {each.name}: {_one_line(error)}") from None
            log.info("applied migration %s", each.name)
        return [each.version for each in missing]

    def _check_server(self) -> None:
        version = self.connection.info.server_version // 10_000
        if version < OLDEST_VERSION:
            raise MigrationError(f"the database is PostgreSQL {version}; {OLDEST_VERSION} or newer is needed")
        encoding = self.connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise MigrationError(f"the database's encoding is {encoding}; create it with ENCODING 'UTF8'")

    async def _take_turn(self) -> None:
        """Waits until no other program migrates. It asks again and again: who waits within a statement has a snapshot,
        and an index that is built concurrently waits for the end of all that are older."""
        give_up = time.monotonic() + self.max_wait
        waiting = False
        while True:
            row = await (await self.connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))).fetchone()
            if row and row[0]:
                return
            if time.monotonic() >= give_up:
                raise MigrationError(f"another migration has run for more than {self.max_wait:g} s")
            if not waiting:
                log.info("waiting for another migration to end")
                waiting = True
            await asyncio.sleep(0.2)

    async def _record(self) -> dict[int, str]:
        """The names of what is applied, by version."""
        there = await (await self.connection.execute("SELECT to_regclass('schema_migration')")).fetchone()
        if not there or there[0] is None:
            return {}
        return dict(await (await self.connection.execute(RECORD)).fetchall())

    async def _create_record(self) -> None:
        await self._execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (version integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now(), checksum text)"
        )

    async def _compare(self, applied: Sequence[Migration]) -> None:
        """Refuses a file that was changed after it was applied; a checksum that is missing is filled in."""
        has_checksum = await self.connection.execute(
            "SELECT 1 FROM pg_attribute WHERE attrelid = 'schema_migration'::regclass AND attname = 'checksum'"
        )
        if not await has_checksum.fetchone():
            # Programs from before name their columns, so they do not notice.
            add = partial(self._execute, "ALTER TABLE schema_migration ADD COLUMN checksum text")
            await self._attempt(_RECORD, add)
        rows = await (await self.connection.execute("SELECT version, checksum FROM schema_migration")).fetchall()
        recorded: dict[int, str | None] = dict(rows)
        for each in applied:
            if recorded[each.version] is None:
                await self.connection.execute(
                    "UPDATE schema_migration SET checksum = %s WHERE version = %s", (each.checksum, each.version)
                )
            elif recorded[each.version] != each.checksum:
                raise MigrationError(
                    f"{each.name}.sql is not what was applied to this database: a released migration is never edited; "
                    "restore it, and write a new one"
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
        # Nobody waits behind a concurrent statement, while to give up would throw away what it has built.
        await self._execute(statement.text, self.max_wait if statement.concurrent else self.lock_timeout)

    async def _drop_invalid(self, index: str) -> None:
        """An index that a failed attempt has left costs each write and serves no read."""
        invalid = await self.connection.execute(
            "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid", (index,)
        )
        if await invalid.fetchone():
            log.info("dropping the index %s, which a failed attempt has left invalid", index)
            name = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index.strip('"')))
            await self._execute(name.as_string(), self.max_wait)

    async def _execute(self, text: str, lock_timeout: float | None = None) -> None:
        milliseconds = str(int((lock_timeout or self.lock_timeout) * 1000))
        await self.connection.execute("SELECT set_config('lock_timeout', %s, false)", (milliseconds,))
        # A file of our own, not input: nothing in it comes from outside.
        await self.connection.execute(text.encode())

    async def _attempt(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Tries a step until it gets its locks."""
        give_up = time.monotonic() + self.max_wait
        pause = BACKOFF[0]
        while True:
            try:
                async with self._telling(what):
                    return await step()
            except _LOST_RACE as error:
                if time.monotonic() + pause >= give_up:
                    raise MigrationError(
                        f"{what} did not get its locks within {self.max_wait:g} s: {_one_line(error)}"
                    ) from None
                log.info("%s is tried again, for up to %d s", what, give_up - time.monotonic())
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause = min(pause * 2, BACKOFF[1])

    @asynccontextmanager
    async def _telling(self, what: str) -> AsyncIterator[None]:
        """Logs whom the block waits for in the database."""
        task = asyncio.create_task(self._tell(what))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell(self, what: str) -> None:
        await asyncio.sleep(min(1, self.lock_timeout / 2))
        last_message = ""
        async with await AsyncConnection.connect(resolve(self.conninfo), autocommit=True) as connection:
            while True:
                rows = await connection.execute(
                    "SELECT format('session %%s (%%s, user %%s)', pid, coalesce(nullif(application_name, ''), '?'),"
                    " usename) FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(%s)) ORDER BY pid",
                    (self.connection.info.backend_pid,),
                )
                blockers = ", ".join(str(row[0]) for row in await rows.fetchall())
                if blockers and blockers != last_message:
                    log.info("%s waits for locks that others hold: %s", what, blockers)
                    last_message = blockers
                await asyncio.sleep(1)


def _one_line(error: psycopg.Error) -> str:
    """What the database says, and what it says to do."""
    parts = [error.diag.message_primary or str(error), error.diag.message_hint or ""]
    return ": ".join(" ".join(part.split()) for part in parts if part)


async def _connect(conninfo: Conninfo, wait: float) -> AsyncConnection[TupleRow]:
    give_up = time.monotonic() + wait
    waiting = False
    while True:
        try:
            return await AsyncConnection.connect(resolve(conninfo), autocommit=True)
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            if time.monotonic() >= give_up:
                raise MigrationError(f"the database does not answer: {reason}") from None
            if not waiting:
                log.info("waiting for the database: %s", reason)
                waiting = True
            await asyncio.sleep(0.5)
