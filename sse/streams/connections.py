"""The open connections of browsers: how many there are, and what wakes each of them: a heartbeat, or its end."""

import asyncio
import enum
import logging
from collections import Counter
from typing import NoReturn, Self

from runtime.errors import resource_exhausted, unavailable
from runtime.wakeup import Wakeup
from sse.config import Limits
from sse.streams.wire import retry_milliseconds

log = logging.getLogger(__name__)

SLOTS = 60
"""Parts of a heartbeat interval; a connection's heartbeats come in the part in which its stream began."""

MAX_WAKES_AT_ONCE = 100
"""Connections that are woken before anything else gets its turn."""


class CloseReason(enum.Enum):
    """Why a stream ends before its order does."""

    SHUTDOWN = enum.auto()
    """This process stops."""
    UPSTREAM_LOST = enum.auto()
    """The order service was unavailable for too long."""


class StreamClosedError(Exception):
    """A stream has to end before its order does."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Connection(Wakeup):
    """One browser's connection. Its wait raises StreamClosedError once it has to end."""

    __slots__ = ("_owner", "client", "heartbeat_due", "slot")

    def __init__(self, owner: "Connections", client: str) -> None:
        super().__init__()
        self._owner = owner
        self.client = client
        self.heartbeat_due = False
        self.slot: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._owner.remove(self)


class Connections:
    """All connections of the process."""

    def __init__(self, limits: Limits, heartbeat_interval: float) -> None:
        """`heartbeat_interval` is the time between two heartbeats of a stream, in seconds."""
        self._limits = limits
        self._slot_duration = heartbeat_interval / SLOTS
        self._connections: set[Connection] = set()
        self._clients: Counter[str] = Counter()
        self._slots: list[set[Connection]] = [set() for _ in range(SLOTS)]
        self._current_slot = 0
        self._full = False
        self._draining = False
        self._closed = asyncio.Event()
        self.opened = 0
        """Connections that were opened so far."""

    @property
    def closed(self) -> int:
        """Connections that were opened and closed again."""
        return self.opened - len(self._connections)

    def __len__(self) -> int:
        return len(self._connections)

    def open(self, client: str, limit: int | None = None) -> Connection:
        """Returns a new connection, which counts until its context is left.

        Args:
            client: The client that the connection counts for.
            limit: How many connections the client may have; by default as many as any client.

        Raises:
            ApiError: UNAVAILABLE while the process shuts down, RESOURCE_EXHAUSTED beyond a limit.
        """
        self._check_admission(client, self._limits.streams_per_client if limit is None else limit)
        connection = Connection(self, client)
        self._connections.add(connection)
        self._clients[client] += 1
        self.opened += 1
        return connection

    def _check_admission(self, client: str, limit: int) -> None:
        if self._draining:
            raise unavailable("the server is shutting down", retry_milliseconds() / 1000)
        if len(self._connections) >= self._limits.streams:
            if not self._full:
                log.warning("all %d streams are in use", self._limits.streams)
            self._full = True
            raise resource_exhausted("too many streams are open", retry_milliseconds() / 1000)
        self._check_client(client, limit)

    def _check_client(self, client: str, limit: int) -> None:
        if limit and self._clients[client] >= limit:
            raise resource_exhausted("too many streams of this caller are open", retry_milliseconds() / 1000)

    def count_for(self, connection: Connection, client: str) -> None:
        """Counts a connection for another client than before.

        Raises:
            ApiError: RESOURCE_EXHAUSTED beyond the limit of a client.
        """
        self._check_client(client, self._limits.streams_per_client)
        self._leave_client(connection.client)
        self._clients[client] += 1
        connection.client = client

    def remove(self, connection: Connection) -> None:
        """Counts a connection no longer."""
        self._connections.remove(connection)
        self._closed.set()
        self._full = False
        self._leave_client(connection.client)
        if connection.slot is not None:
            self._slots[connection.slot].discard(connection)

    def _leave_client(self, client: str) -> None:
        if self._clients[client] == 1:
            del self._clients[client]
        else:
            self._clients[client] -= 1

    def start_heartbeats(self, connection: Connection) -> None:
        """Gives a connection heartbeats, the first after one interval."""
        connection.slot = (self._current_slot - 1) % SLOTS
        self._slots[connection.slot].add(connection)

    async def drain(self) -> None:
        """Admits no connection, ends all that are open, and returns when they have closed."""
        self._draining = True
        for connection in self._connections:
            connection.close(StreamClosedError(CloseReason.SHUTDOWN))
        while self._connections:
            self._closed.clear()
            await self._closed.wait()

    async def run_heartbeats(self) -> NoReturn:
        """Wakes every connection with heartbeats once in an interval.

        One clock for all: idle streams cost next to nothing.
        """
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._slot_duration, loop.time())
            await asyncio.sleep(due - loop.time())
            slot = self._current_slot
            self._current_slot = (slot + 1) % SLOTS
            for number, connection in enumerate(list(self._slots[slot]), 1):
                connection.heartbeat_due = True
                connection.wake()
                if not number % MAX_WAKES_AT_ONCE:
                    await asyncio.sleep(0)
