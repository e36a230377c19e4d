"""Numbered SQL files, applied in order under a lock: `0001_what_it_does.sql` and so on.

Migrations are backward compatible by one version, so that old and new processes live side by side; an older program
finds its newest file applied already and does nothing, which is what a rollback needs.
"""

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import AsyncConnection

from runtime.credentials import Conninfo, resolve
from runtime.database import OLDEST_VERSION

log = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LOCK = 0x53484F50
"""The advisory lock of all migrations: `SHOP` in ASCII."""


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message is one line for people."""


@dataclass(frozen=True)
class Migration:
    version: int
    path: Path


def migrations(directory: Path) -> list[Migration]:
    """The files of a directory in order. Their numbers run from 1 without a gap."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if not match:
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql")
        found.append(Migration(int(match[1]), path))
    if [each.version for each in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"the migrations in {directory} are not numbered from 1 without a gap")
    return found


def newest(directory: Path) -> int:
    return migrations(directory)[-1].version


async def migrate(conninfo: Conninfo, directory: Path, *, wait: float = 60) -> list[int]:
    """Applies what is missing and answers the versions applied. Waits up to `wait` seconds for the database, and for
    credentials that it accepts: a callable is asked for them at each attempt."""
    todo = migrations(directory)
    connection = await _connect(conninfo, wait)
    async with connection:
        version = connection.info.server_version // 10_000
        if version < OLDEST_VERSION:
            raise MigrationError(f"the database is PostgreSQL {version}; {OLDEST_VERSION} or newer is needed")
        await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration"
            " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = await (await connection.execute("SELECT version FROM schema_migration")).fetchall()
        applied = {row[0] for row in rows}
        return [await _apply(connection, each) for each in todo if each.version not in applied]


async def _apply(connection: AsyncConnection[tuple[int, ...]], migration: Migration) -> int:
    async with connection.transaction():
        # A file of our own, not input: nothing in it comes from outside.
        await connection.execute(migration.path.read_bytes())
        await connection.execute(
            "INSERT INTO schema_migration (version, name) VALUES (%s, %s)", (migration.version, migration.path.stem)
        )
    log.info("applied migration %s", migration.path.stem)
    return migration.version


async def _connect(conninfo: Conninfo, wait: float) -> AsyncConnection[tuple[int, ...]]:
    give_up = time.monotonic() + wait
    said = False
    while True:
        try:
            return await AsyncConnection.connect(resolve(conninfo), autocommit=True)
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            if time.monotonic() >= give_up:
                raise MigrationError(f"the database does not answer: {reason}") from None
            if not said:
                log.info("waiting for the database: %s", reason)
                said = True
            await asyncio.sleep(0.5)
