"""A database of `runtime` on a test's own database, and statements beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg

from runtime.database import Database


@dataclass(frozen=True)
class Number:
    """A row with one number."""

    n: int


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Database]:
    """Opens a database, and closes it at the end of the block."""
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def execute(conninfo: str, statement: str) -> None:
    """Runs statements on a connection of their own."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute(statement.encode())
