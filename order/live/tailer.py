"""The tailer: hands the events of the log to this process's followers as they become visible."""

import asyncio
import logging
import time
from typing import Any

import psycopg
from psycopg import AsyncConnection, Notify, errors

from order.domain import StatusEvent
from order.live.cursor import Connection, EventCursor, TooManyEventsError, execute
from runtime.backoff import Backoff
from runtime.connecting import connect
from runtime.connection import cut
from runtime.credentials import Conninfo, resolve
from runtime.session import SERVER
from runtime.topics import Topics

log = logging.getLogger(__name__)

POLL_INTERVAL = 1.0
"""Seconds between two reads of the log when nothing wakes the tailer: a NOTIFY is a hint that may be lost."""

MIN_READ_INTERVAL = 0.02
"""Seconds between two reads of the log, and between two hints to other processes, at least."""

RECONNECT_PAUSE = (0.05, 0.5)
"""Seconds before another attempt to connect, at first and at most."""

CHECK_TIMEOUT = 1.0
"""Seconds for which a check waits for a connection."""


class Tailer:
    """One per process, on a connection of its own."""

    def __init__(self, conninfo: Conninfo, topics: Topics[StatusEvent]) -> None:
        """`conninfo` leads to the primary (see `ConnectionInfo`): a standby shows events late, and cannot notify."""
        self._conninfo = conninfo
        self._topics = topics
        self._wake = asyncio.Event()
        self._committed = False
        self._tailing = asyncio.Event()
        self._reason = "not yet"
        self._connection: Connection | None = None
        self._server = ""
        self.events = 0
        """Events that were read since the process started."""
        self.read_time = time.monotonic()
        """When all events that were visible had been read last, by `time.monotonic`; at first, when this was made."""

    def committed(self) -> None:
        """Says that this process has just committed an event."""
        self._committed = True
        self._wake.set()

    def follow_primary(self, server: str) -> None:
        """Ends the connection unless it leads to the primary.

        Args:
            server: Which server is the primary, as SERVER has read it on a new connection.
        """
        if self._connection and self._server not in ("", server):
            cut(self._connection)

    async def run(self) -> None:
        """Tails over any number of connections. Never returns."""
        backoff = Backoff(*RECONNECT_PAUSE)
        while True:
            try:
                await self._tail()
            except (psycopg.Error, TimeoutError) as error:
                self._note_failure(error)
                if self._tailing.is_set():
                    log.warning("the status tailer lost its connection: %s", self._reason)
                    backoff.reset()
            except Exception as error:
                log.exception("the status tailer failed")
                self._reason = type(error).__name__
            self._tailing.clear()
            await asyncio.sleep(backoff.next())

    def _note_failure(self, error: Exception) -> None:
        self._reason = " ".join(str(error).split()) or type(error).__name__

    async def check(self) -> str:
        """Returns why events do not arrive at present, in one line; empty when they do."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._tailing.wait()
        except TimeoutError:
            return f"the status tailer has no connection ({self._reason})"
        return ""

    async def poll(self, cursor: EventCursor) -> None:
        """Publishes what became visible.

        Where that is too much to read, most of it is of orders that nobody follows. The logs of the others are read
        again, as after a reconnect, since the cursor moves first.
        """
        try:
            events = await cursor.read()
        except TooManyEventsError:
            log.info("too many new events for one read: reading the logs of all followed orders again")
            self._topics.refresh_all()
        else:
            self.events += len(events)
            for order_id, event in events:
                self._topics.publish(order_id, event)
        self.read_time = time.monotonic()

    async def _tail(self) -> None:
        """Tails over one connection until it fails."""
        connection = await connect(self._connect, on_failure=self._note_failure)
        self._connection = connection
        try:
            row = await (await execute(connection, SERVER)).fetchone()
            self._server = row[0] if row else ""
            connection.add_notify_handler(lambda notice: self._notified(connection, notice))
            await execute(connection, "LISTEN order_event")
            cursor = EventCursor(connection)
            # First the cursor, then the logs: nothing can be missed between the two.
            await cursor.start()
            self._topics.refresh_all()
            log.info("tailing the event log")
            self._tailing.set()
            await self._publish_and_notify(connection, cursor)
        finally:
            self._connection, self._server = None, ""
            await connection.close()

    async def _connect(self, **parameters: Any) -> Connection:
        conninfo = resolve(self._conninfo)
        return await AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=0, **parameters)

    async def _publish_and_notify(self, connection: Connection, cursor: EventCursor) -> None:
        clock = asyncio.get_running_loop().time
        next_poll = clock()
        while True:
            await self._pause(connection)
            self._wake.clear()
            committed = self._committed
            # A commit of this process is no reason to read while nobody follows an order here: the cursor stays where
            # it is, and a later read finds everything. Any other wake may be something to read on the connection.
            if not committed or self._topics or clock() >= next_poll:
                next_poll = clock() + POLL_INTERVAL
                await self.poll(cursor)
            if committed:
                self._committed = False
                await self._notify(connection)
            await asyncio.sleep(MIN_READ_INTERVAL)

    def _notified(self, connection: Connection, notice: Notify) -> None:
        if notice.pid != connection.info.backend_pid:
            self._wake.set()

    async def _pause(self, connection: Connection) -> None:
        """Waits for a commit of this process, for something to read on the connection, or for POLL_INTERVAL.

        Something to read is a hint of another process, or the end of the connection. The driver's own `notifies()`
        waits for the connection alone, and may hang when it is cancelled.
        """
        loop = asyncio.get_running_loop()
        descriptor = connection.fileno()
        loop.add_reader(descriptor, self._wake.set)
        try:
            async with asyncio.timeout(POLL_INTERVAL):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(descriptor)

    @staticmethod
    async def _notify(connection: Connection) -> None:
        """Wakes other processes. Never in a business transaction: at commit it takes one lock for the whole cluster."""
        try:
            await execute(connection, "NOTIFY order_event")
        except errors.ProgramLimitExceeded:
            log.warning("the NOTIFY queue is full; other processes see new events at their next poll (every second)")
