"""Which statements wait for a lock in a database, asked without the service."""

import psycopg

from tests.support.eventually import eventually


async def waiting_statements(conninfo: str) -> list[str]:
    """Returns the statements that wait for a lock in this database."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        rows = await connection.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return [row[0] for row in await rows.fetchall()]


async def until_waiting(conninfo: str, number: int) -> None:
    """Waits until at least so many statements wait for a lock."""

    async def enough() -> bool:
        return len(await waiting_statements(conninfo)) >= number

    await eventually(enough)


async def until_none_waits(conninfo: str, seconds: float) -> None:
    """Waits until no statement waits for a lock, since their callers have left.

    Release the lock only after this: before it, the statements would run.
    """

    async def gone() -> bool:
        return not await waiting_statements(conninfo)

    await eventually(gone, seconds)
