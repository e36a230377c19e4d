"""The tailer: reads the events that became visible since it last looked, and hands them to this process's watchers.

What an earlier snapshot could not see is what began after it or was running in it. So it misses nothing, whatever the
sequence of commits, and a long transaction elsewhere neither stalls it nor makes it read rows again. Such a cursor
lives as long as its connection: a crash or a failover reuses transaction ids.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Notify, errors

from order.domain import StatusEvent
from runtime.connection import answering
from runtime.credentials import Conninfo, resolve
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

MOST_EVENTS = 2_000
"""Events that one look reads. A busy shop has a few hundred a second; more are a bulk change, or a standstill."""

LOOK: LiteralString = """
    WITH found AS MATERIALIZED (
        SELECT order_id, version, status, create_time FROM order_event
        WHERE xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
            OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(seen)s::pg_snapshot)))
    )
    SELECT pg_current_snapshot()::text AS snapshot, NULL AS order_id, NULL AS version, NULL AS status, NULL AS time
    UNION ALL
    (SELECT NULL, order_id, version, status, create_time FROM found LIMIT %(limit)s)
    """
"""A snapshot, and what became visible between the snapshot `seen` and it, up to `limit` events.

Materialized: a plan that expects to find `limit` events soon would read all of a log in which there are none.
"""

SETTINGS = {"enable_seqscan": "off", "jit": "off"}
"""PostgreSQL's: where many rows have one transaction id (a bulk load), statistics would have each look read the whole
log."""

Connection = AsyncConnection[Any]


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

    async def check(self) -> str:
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
        for name, value in SETTINGS.items():
            await _execute(connection, "SELECT set_config(%(name)s, %(value)s, false)", {"name": name, "value": value})

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
        """Publishes what became visible since `snapshot`; answers the snapshot after it.

        Where that is more than MOST_EVENTS, none of it is read here: most of it will be of orders that nobody watches.
        The logs of the others are read anew, as after a reconnect, since the snapshot comes before them.
        """
        async with connection.cursor() as cursor:
            with answering(connection, TIMEOUT):
                await cursor.execute(LOOK, {"seen": snapshot, "limit": MOST_EVENTS + 1})
            rows = await cursor.fetchall()
        (seen,) = (row[0] for row in rows if row[0])
        found = [row[1:] for row in rows if not row[0]]
        if len(found) > MOST_EVENTS:
            log.info("more than %d events at once: reading the logs of watched orders", MOST_EVENTS)
            self._topics.request_all()
        else:
            for order_id, version, status, time in sorted(found):
                self._publish(order_id, StatusEvent(version, status, time))
        return str(seen)

    def _publish(self, order_id: UUID, event: StatusEvent) -> None:
        key = str(order_id)
        if key in self._topics:
            self._topics.publish(key, event)

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
