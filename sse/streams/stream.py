"""The open streams: how many there are, what wakes each of them, and their heartbeats."""

import asyncio
import enum
import logging
from collections import Counter
from collections.abc import Collection
from typing import NoReturn

from runtime.errors import resource_exhausted, unavailable
from sse.config import Limits
from sse.streams.wire import retry_milliseconds

log = logging.getLogger(__name__)

SLOTS = 60
"""Into so many parts a heartbeat interval is cut; streams beat in the part in which they began."""

AT_ONCE = 100
"""So many streams are woken before anything else gets its turn."""


class End(enum.Enum):
    """Why a stream has to end before its order does."""

    AWAY = enum.auto()
    """This process stops."""
    LOST = enum.auto()
    """The order service was away for too long."""


class Stream:
    """One browser's stream, parked until something wakes it."""

    __slots__ = ("_awake", "_parked", "beat", "client", "end", "order_id", "slot")

    def __init__(self, client: str, order_id: str) -> None:
        self.client = client
        self.order_id = order_id
        self.beat = False
        """A heartbeat is due."""
        self.end: End | None = None
        self.slot = -1
        self._awake = False
        self._parked: asyncio.Future[None] | None = None

    def wake(self, _: object = None) -> None:
        self._awake = True
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    async def wait(self) -> None:
        """Returns when it was woken since the last call."""
        if not self._awake:
            self._parked = asyncio.get_running_loop().create_future()
            try:
                await self._parked
            finally:
                self._parked = None
        self._awake = False


class Streams:
    """All streams of the process."""

    def __init__(self, limits: Limits, interval: float) -> None:
        """`interval` is the seconds between two heartbeats of a stream."""
        self._limits = limits
        self._tick = interval / SLOTS
        self._streams: set[Stream] = set()
        self._clients: Counter[str] = Counter()
        self._slots: list[set[Stream]] = [set() for _ in range(SLOTS)]
        self._hand = 0
        self._full = False
        self._draining = False
        self._left = asyncio.Event()
        self.joined = 0
        """Streams that have joined so far."""

    @property
    def ended(self) -> int:
        """Streams that have joined and left again."""
        return self.joined - len(self._streams)

    def __len__(self) -> int:
        return len(self._streams)

    def join(self, client: str, order_id: str) -> Stream:
        """A new stream, to be given back with `leave`. Raises UNAVAILABLE while the process goes away, and
        RESOURCE_EXHAUSTED beyond a limit."""
        if self._draining:
            raise unavailable("the server is going away", retry_milliseconds() / 1000)
        if len(self._streams) >= self._limits.streams:
            if not self._full:
                log.warning("all %d streams are taken", self._limits.streams)
            self._full = True
            raise resource_exhausted("too many streams are open", retry_milliseconds() / 1000)
        most = self._limits.streams_per_client
        if most and self._clients[client] >= most:
            raise resource_exhausted("too many streams are open from this address", retry_milliseconds() / 1000)
        stream = Stream(client, order_id)
        self._streams.add(stream)
        self.joined += 1
        self._clients[client] += 1
        return stream

    def leave(self, stream: Stream) -> None:
        self._streams.remove(stream)
        self._left.set()
        self._full = False
        if self._clients[stream.client] == 1:
            del self._clients[stream.client]
        else:
            self._clients[stream.client] -= 1
        if stream.slot >= 0:
            self._slots[stream.slot].discard(stream)

    def live(self, stream: Stream) -> None:
        """The stream has begun: it gets heartbeats, the first after one interval."""
        stream.slot = (self._hand - 1) % SLOTS
        self._slots[stream.slot].add(stream)

    def end(self, why: End, order_ids: Collection[str] | None = None) -> None:
        """Ends the streams of these orders, or all."""
        chosen = None if order_ids is None else frozenset(order_ids)
        for stream in self._streams:
            if chosen is None or stream.order_id in chosen:
                stream.end = why
                stream.wake()

    async def drain(self) -> None:
        """Lets no stream join, ends all that are there, and returns when they have gone."""
        self._draining = True
        self.end(End.AWAY)
        while self._streams:
            self._left.clear()
            await self._left.wait()

    async def beat(self) -> NoReturn:
        """Wakes every live stream once in an interval, for ever. One clock for all: idle streams cost next to
        nothing."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._tick, loop.time())
            await asyncio.sleep(due - loop.time())
            slot = self._hand
            self._hand = (slot + 1) % SLOTS
            for number, stream in enumerate(list(self._slots[slot]), 1):
                stream.beat = True
                stream.wake()
                if not number % AT_ONCE:
                    await asyncio.sleep(0)
