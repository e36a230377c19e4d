"""What a process asks of its sessions of PostgreSQL: settings, and which server they are on."""

import re
from contextlib import suppress
from functools import lru_cache
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection

from runtime import driver_errors
from runtime.connection import Connection, cut_after
from runtime.errors import unavailable

Settings = tuple[list[str], list[str]]
"""Names and values of settings of PostgreSQL."""

SERVER: LiteralString = "SELECT extract(epoch FROM pg_postmaster_start_time())::text"
"""Reads which run of which server a connection leads to: no two have started in the same microsecond."""

SET_IN_SESSION: LiteralString = """
    SELECT extract(epoch FROM pg_postmaster_start_time())::text, count(set_config(name, value, false))
    FROM unnest(%s::text[], %s::text[]) AS given (name, value)
    """
"""Sets settings, and reads what SERVER does."""

SET_IN_TRANSACTION: LiteralString = """
    SELECT pg_is_in_recovery(), count(set_config(name, value, true))
    FROM unnest(%s::text[], %s::text[]) AS given (name, value)
    """
"""Sets settings, and reads whether the server is a standby."""

END_SESSION_TIMEOUT = 1.0
"""Seconds that ending a session may take."""

_END_STANDBY_SESSION = "SELECT pg_terminate_backend(pg_backend_pid()) WHERE pg_is_in_recovery()"

_END_SESSIONS_ELSEWHERE = """
    SELECT pg_terminate_backend(pid) FROM (
        SELECT pid FROM pg_stat_activity
        WHERE usename = current_user AND extract(epoch FROM pg_postmaster_start_time())::text <> %s
        ORDER BY pid = pg_backend_pid()
    ) AS session
    """
"""Its own session comes last."""

WRITE_NOTHING: LiteralString = "SELECT FROM pg_logical_emit_message(true, 'shop', '')"
"""Changes no table, but its commit waits for a synchronous standby like any other: a transaction id is not enough."""

_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "pg_logical_emit_message")

_WRITE = re.compile(rf"\b(?:{'|'.join(_WRITES)})\b")


class OnStandbyError(psycopg.errors.ReadOnlySqlTransaction):
    """A pooler has led a statement to a standby, and the session there was ended. Nothing was written."""

    sqlstate = driver_errors.READ_ONLY


@lru_cache(maxsize=512)
def writes(query: str) -> bool:
    """Returns whether a statement may write, and so wait at its commit."""
    return bool(_WRITE.search(query))


async def server_of(connection: AsyncConnection[Any]) -> str:
    """Returns which run of which server a connection leads to (see SERVER). Raises psycopg.Error if it fails."""
    row = await (await connection.execute(SERVER)).fetchone()
    assert row
    return str(row[0])


async def end_standby_session(connection: AsyncConnection[Any]) -> bool:
    """Ends the server's session, if the server is a standby. Returns whether it was one.

    Nothing else makes a pooler leave a primary that has become a standby: it keeps its connections to the server for an
    hour, and hands them to all its clients. The role may end sessions of its own.
    """
    try:
        with cut_after(connection, END_SESSION_TIMEOUT):
            await connection.execute(_END_STANDBY_SESSION)
    except psycopg.Error:
        return True
    return False


async def end_sessions_elsewhere(connection: AsyncConnection[Any], server: str) -> None:
    """Ends all sessions of the role on the server, also this one, unless the server is `server` (see SERVER).

    A primary that was cut off and replaced may still respond. A pooler then goes on using its connections to it.
    """
    with suppress(psycopg.Error), cut_after(connection, END_SESSION_TIMEOUT):
        await connection.execute(_END_SESSIONS_ELSEWHERE, (server,))


def check_replicated(connection: Connection) -> None:
    """Checks that the commit has not ended its wait for a standby without one.

    Raises:
        ApiError: UNAVAILABLE: it has. What it wrote is visible, but a failover can still lose it.
    """
    if connection.is_unreplicated:
        connection.is_unreplicated = False
        raise unavailable("a write was not replicated; retry")
