"""The tailer: reads the events that became visible since it last looked, and hands them to this process's watchers.

What an earlier snapshot could not see is what began after it or was running in it. So it misses nothing, whatever the
sequence of commits, and a long transaction elsewhere neither stalls it nor makes it read rows again. Such a cursor
lives as long as its connection: a crash or a failover reuses transaction ids.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Notify, errors
from psycopg.rows import class_row

from order.domain import StatusEvent
from runtime.credentials import Conninfo, resolve
from runtime.database import answering
from runtime.topics import Topics

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks where nothing wakes the tailer: NOTIFY is a hint that may be lost."""

SPACING = 0.02
"""Seconds between two looks at least, and between two hints to other processes."""

TIMEOUT = 10.0
"""Seconds after which a connection that does not answer is given up."""

LONGEST_WAIT = 2.0
"""Seconds between two attempts to connect, at most."""

REWRITTEN_AT_ONCE = 10_000

LOOK: LiteralString = """
    SELECT s.snapshot::text, e.order_id, e.version, e.status, e.create_time
    FROM (SELECT pg_current_snapshot() AS snapshot) AS s
    LEFT JOIN order_event AS e
        ON e.xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
        OR e.xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(seen)s::pg_snapshot)))
    ORDER BY e.order_id, e.version
    """
"""What became visible since the snapshot `seen`, and the snapshot after it."""

Connection = AsyncConnection[Any]


@dataclass(frozen=True)
class _Tailed:
    """A snapshot, and an event that it sees and the one before did not; or no event."""

    snapshot: str
    order_id: UUID | None
    version: int
    status: str
    create_time: datetime


class Tailer:
    """One per process, on a connection of its own."""

    def __init__(self, conninfo: Conninfo, topics: Topics[StatusEvent]) -> None:
        """`conninfo` leads to the primary (see `ConnectionInfo`): what a standby shows comes late, and it cannot
        notify."""
        self._conninfo = conninfo
        self._topics = topics
        self._wake = asyncio.Event()
        self._hint = False
        self._tailing = asyncio.Event()
        self._reason = "not yet"

    def committed(self) -> None:
        """This process has just committed an event."""
        self._hint = True
        self._wake.set()

    async def run(self) -> None:
        """Tails for ever, over any number of connections."""
        wait = 0.1
        while True:
            try:
                await self._tail()
            except (psycopg.Error, TimeoutError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                self._reason = reason
                if self._tailing.is_set():
                    log.warning("the status tailer lost its connection: %s", reason)
                    wait = 0.1
            except Exception as error:
                log.exception("the status tailer failed")
                self._reason = type(error).__name__
            self._tailing.clear()
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def problem(self) -> str:
        """Why events do not arrive at present, in one line; empty when they do. Gives it a second to connect."""
        try:
            async with asyncio.timeout(1):
                await self._tailing.wait()
        except TimeoutError:
            return f"the status tailer has no connection ({self._reason})"
        return ""

    async def _tail(self) -> None:
        """Tails over one connection until it fails."""
        async with asyncio.timeout(TIMEOUT):
            connection = await AsyncConnection.connect(resolve(self._conninfo), autocommit=True, prepare_threshold=0)
        try:
            await self._prepare(connection)
            await self._rewrite_the_future(connection)
            # First the cursor, then the logs: between the two nothing can be missed.
            snapshot = await self._snapshot(connection)
            self._topics.request_all()
            log.info("tailing the event log")
            self._tailing.set()
            while True:
                await self._pause(connection)
                self._wake.clear()
                snapshot = await self._look(connection, snapshot)
                if self._hint:
                    self._hint = False
                    await self._notify(connection)
                await asyncio.sleep(SPACING)
        finally:
            await connection.close()

    async def _prepare(self, connection: Connection) -> None:
        connection.add_notify_handler(lambda notice: self._noticed(connection, notice))
        await _execute(connection, "LISTEN order_event")
        # Where many rows have one transaction id (a bulk load), statistics would have each look read the whole log.
        settings: LiteralString = "SELECT set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false)"
        await _execute(connection, settings)

    def _noticed(self, connection: Connection, notice: Notify) -> None:
        if notice.pid != connection.info.backend_pid:
            self._wake.set()

    async def _pause(self, connection: Connection) -> None:
        """Until this process commits, the connection has something to read (a hint, or its end), or INTERVAL is over.

        The driver's own `notifies()` waits for the connection alone, and may hang when it is cancelled.
        """
        loop = asyncio.get_running_loop()
        descriptor = connection.fileno()
        loop.add_reader(descriptor, self._wake.set)
        try:
            async with asyncio.timeout(INTERVAL):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(descriptor)

    @staticmethod
    async def _snapshot(connection: Connection) -> str:
        cursor = await _execute(connection, "SELECT pg_current_snapshot()::text")
        (snapshot,) = await cursor.fetchone() or ("",)
        return str(snapshot)

    async def _look(self, connection: Connection, snapshot: str) -> str:
        """Publishes what became visible since `snapshot`; answers the snapshot after it."""
        async with connection.cursor(row_factory=class_row(_Tailed)) as cursor:
            with answering(connection, TIMEOUT):
                await cursor.execute(LOOK, {"seen": snapshot})
            rows = await cursor.fetchall()
        for row in rows:
            if row.order_id is not None:
                self._publish(row)
        return rows[0].snapshot

    def _publish(self, row: _Tailed) -> None:
        key = str(row.order_id)
        if key in self._topics:
            self._topics.publish(key, StatusEvent(row.version, row.status, row.create_time))

    @staticmethod
    async def _notify(connection: Connection) -> None:
        """Wakes other processes. Never in a business transaction: at commit it takes one lock for the whole cluster."""
        try:
            await _execute(connection, "NOTIFY order_event")
        except errors.ProgramLimitExceeded:
            log.warning("the notification queue is full; other processes look each second")

    @staticmethod
    async def _rewrite_the_future(connection: Connection) -> None:
        """A logical restore brings rows with transaction ids that are still to come here: each look would find them."""
        while True:
            query: LiteralString = """
                UPDATE order_event SET xid = '0' WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM order_event WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT %(limit)s
                ))
                """
            cursor = await _execute(connection, query, {"limit": REWRITTEN_AT_ONCE})
            if not cursor.rowcount:
                return
            log.warning("rewrote %s events that a restore brought", cursor.rowcount)


async def _execute(
    connection: Connection, query: LiteralString, params: Mapping[str, object] | None = None
) -> AsyncCursor[Any]:
    with answering(connection, TIMEOUT):
        return await connection.execute(query, params)
