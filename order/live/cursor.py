"""The cursor of the event log: what became visible in the database since it last read.

What an earlier snapshot could not see is what began after it or was running in it. So the cursor misses nothing,
whatever the sequence of commits, and a long transaction elsewhere neither stalls it nor makes it read rows again. Such
a cursor lives as long as its connection: a crash or a failover reuses transaction ids.
"""

import logging
from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg import AsyncConnection, AsyncCursor

from order.domain import StatusEvent
from runtime.connection import cut_after

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT = 10.0
"""Seconds after which a connection that does not respond is closed."""

READ_TIMEOUT = 5.0
"""Seconds after which a connection on which a read does not respond is closed. It is a short read of an index."""

MAX_EVENTS = 2_000
"""Events that one read returns. A busy shop has a few hundred a second; more are a bulk change, or a standstill."""

MAX_XIDS_PER_RESET = 10_000
"""Rows that one statement resets after a restore."""

READ: LiteralString = """
    WITH found AS MATERIALIZED (
        SELECT order_id, version, status, create_time, traceparent FROM order_event
        WHERE xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
            OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(seen)s::pg_snapshot)))
    )
    SELECT pg_current_snapshot()::text AS snapshot, NULL AS order_id, NULL AS version, NULL AS status, NULL AS time,
        NULL AS traceparent
    UNION ALL
    (SELECT NULL, order_id, version, status, create_time, traceparent FROM found LIMIT %(limit)s)
    """
"""A snapshot, and what became visible between the snapshot `seen` and it, up to `limit` events.

Materialized: a plan that expects to find `limit` events soon would read all of a log in which there are none.
"""

_RESTORED: LiteralString = "SELECT true FROM order_event WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 1"

_RESET: LiteralString = """
    UPDATE order_event SET xid = '0' WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM order_event WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT %(limit)s
    ))
    """

PLANNER_SETTINGS = {"enable_seqscan": "off", "jit": "off"}
"""Where many rows have one transaction id (a bulk load), statistics would have each read scan the whole log."""

Connection = AsyncConnection[Any]


class TooManyEventsError(Exception):
    """More than MAX_EVENTS events became visible at once; none of them was read."""


class EventCursor:
    """Reads each event once, as it becomes visible, over one connection."""

    def __init__(self, connection: Connection) -> None:
        """`connection` is in autocommit mode, and leads to the primary."""
        self._connection = connection
        self._seen = ""

    @property
    def snapshot(self) -> str:
        """The snapshot up to which events were read, as PostgreSQL writes it."""
        return self._seen

    async def start(self) -> None:
        """Places the cursor: events from now on are read.

        Raises:
            psycopg.Error: The database failed, or did not respond in time.
        """
        query: LiteralString = "SELECT set_config(%(name)s, %(value)s, false)"
        for name, value in PLANNER_SETTINGS.items():
            await execute(self._connection, query, {"name": name, "value": value})
        await self._reset_restored_xids()
        cursor = await execute(self._connection, "SELECT pg_current_snapshot()::text")
        (snapshot,) = await cursor.fetchone() or ("",)
        self._seen = str(snapshot)

    async def read(self) -> list[tuple[str, StatusEvent]]:
        """Returns the events that became visible since the last call, each with its order's id, by order and version.

        Raises:
            TooManyEventsError: There are more than MAX_EVENTS of them. The next call returns what comes after them.
            psycopg.Error: The database failed, or did not respond in time.
        """
        async with self._connection.cursor() as cursor:
            with cut_after(self._connection, READ_TIMEOUT):
                await cursor.execute(READ, {"seen": self._seen, "limit": MAX_EVENTS + 1})
            rows = await cursor.fetchall()
        (self._seen,) = (row[0] for row in rows if row[0])
        found = [row[1:] for row in rows if not row[0]]
        if len(found) > MAX_EVENTS:
            raise TooManyEventsError
        return [(str(order_id), StatusEvent(*event)) for order_id, *event in sorted(found)]

    async def _reset_restored_xids(self) -> None:
        """A logical restore brings rows with transaction ids of the future: each read would find them.

        Where there are none, nothing is written: the events of a read-only database can still be read.
        """
        while await (await execute(self._connection, _RESTORED)).fetchone():
            await execute(self._connection, _RESET, {"limit": MAX_XIDS_PER_RESET})
            log.warning("reset the transaction ids of restored events")


async def execute(
    connection: Connection, query: LiteralString, params: Mapping[str, object] | None = None
) -> AsyncCursor[Any]:
    """Runs a statement, and cuts the connection where the database does not respond within STATEMENT_TIMEOUT."""
    with cut_after(connection, STATEMENT_TIMEOUT):
        return await connection.execute(query, params)
