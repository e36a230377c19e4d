"""This process's watchers: the logs that they need are read in batches, and each call learns which orders have news."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from uuid import UUID

from order.domain import StatusEvent
from order.store import LogEntry, OrderStore
from runtime.errors import ApiError, unavailable
from runtime.topics import Topics, Watcher

log = logging.getLogger(__name__)

BATCH = 500
"""Logs that are read at a time."""

LONGEST_WAIT = 2.0
"""Seconds between two attempts to read logs, at most."""


class Logs:
    """Reads the logs of orders that somebody watches into their topics."""

    def __init__(self, orders: OrderStore) -> None:
        self._orders = orders
        self._wanted: dict[str, None] = {}
        self._wake = asyncio.Event()
        self.topics: Topics[StatusEvent] = Topics(self._request)

    def _request(self, key: str) -> None:
        self._wanted[key] = None
        self._wake.set()

    async def run(self) -> None:
        """Reads what is requested, for ever."""
        wait = 0.1
        while True:
            await self._wake.wait()
            batch = self._next()
            try:
                await self._read(batch)
                wait = 0.1
            except Exception as error:
                if not isinstance(error, ApiError):
                    log.exception("reading event logs failed")
                for key in batch:
                    self._request(key)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _next(self) -> list[str]:
        batch = list(islice(self._wanted, BATCH))
        for key in batch:
            del self._wanted[key]
        if not self._wanted:
            self._wake.clear()
        return [key for key in batch if key in self.topics]

    async def _read(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        # Whatever is known before the read was committed before it: a log without it is that of a restored database.
        known = {key: self.topics.newest(key) for key in keys}
        entries = await self._orders.logs([UUID(key) for key in keys])
        found = {str(order_id): list(rows) for order_id, rows in groupby(entries, key=lambda entry: entry.id)}
        for key in keys:
            latest = key not in self._wanted  # otherwise somebody else asks by now, and a later read answers
            events = _events(found[key]) if key in found else []
            if events and not _contradicts(events, known[key]):
                self.topics.fill(key, events, latest=latest)
            elif events or latest:
                self.topics.miss(key)


def _contradicts(events: Sequence[StatusEvent], known: StatusEvent | None) -> bool:
    """Whether a log that is read cannot follow from what was known of it."""
    if known is None or known.version < events[0].version:
        return False
    return known.status not in (event.status for event in events if event.version == known.version)


def _events(entries: Iterable[LogEntry]) -> list[StatusEvent]:
    """An order's log. Where its entries were pruned by age, the state is its one event."""
    events = []
    for entry in entries:
        if entry.version is None or entry.status is None or entry.create_time is None:
            return [StatusEvent(entry.state_version, entry.state_status, entry.state_time)]
        events.append(StatusEvent(entry.version, entry.status, entry.create_time))
    return events


class Followers:
    """All calls of this process that wait for events."""

    def __init__(self, topics: Topics[StatusEvent]) -> None:
        self.topics = topics
        self._all: set[Follower] = set()
        self._refusal = ""

    def __len__(self) -> int:
        return len(self._all)

    def add(self) -> "Follower":
        if self._refusal:
            raise unavailable(self._refusal)
        follower = Follower(self)
        self._all.add(follower)
        return follower

    def discard(self, follower: "Follower") -> None:
        self._all.discard(follower)

    def close(self, why: str = "the server is going away") -> None:
        """Ends every call with UNAVAILABLE: their clients go on elsewhere, after the last version they saw."""
        self._refusal = why
        for follower in self._all:
            follower.end(why)

    def serve(self, able: bool) -> None:
        """Whether this process hears of what happens. One that is deaf keeps no call: its silence would look as if
        nothing happened to the orders."""
        if able:
            self._refusal = ""
        else:
            self.close("orders cannot be followed here at present")


class Follower:
    """One call's watchers, and which of them have news. Both are sets, so a client that does not read costs no more."""

    def __init__(self, owner: Followers) -> None:
        self._owner = owner
        self._watchers: dict[str, Watcher[StatusEvent]] = {}
        self._news: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._ended = ""

    def __len__(self) -> int:
        return len(self._watchers)

    def follow(self, key: str, after_version: int, *, renew: bool = False) -> Watcher[StatusEvent]:
        """Follows an order from now on, after a version; in place of what was followed of it before. `renew` has its
        log read again where somebody else follows it already: what this process knows may be behind."""
        self.unfollow(key)
        known = key in self._owner.topics
        watcher = self._owner.topics.watch(key, after_version, self._notified)
        if known and renew:
            self._owner.topics.renew(key)
        self._watchers[key] = watcher
        if watcher.topic.answered:
            self._notified(watcher)
        return watcher

    def unfollow(self, key: str) -> None:
        watcher = self._watchers.pop(key, None)
        if watcher:
            self._owner.topics.unwatch(watcher)
        self._news.pop(key, None)

    def _notified(self, watcher: Watcher[StatusEvent]) -> None:
        self._news[watcher.topic.key] = None
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def end(self, why: str) -> None:
        self._ended = why
        self._wake.set()

    async def news(self, most: int) -> list[Watcher[StatusEvent]]:
        """Waits until orders have news, or until woken; answers at most so many of them.

        Raises UNAVAILABLE when the server goes away, or is deaf.
        """
        await self._wake.wait()
        if self._ended:
            raise unavailable(self._ended)
        keys = list(islice(self._news, most))
        for key in keys:
            del self._news[key]
        if not self._news:
            self._wake.clear()
        return [self._watchers[key] for key in keys]

    def close(self) -> None:
        for key in list(self._watchers):
            self.unfollow(key)
        self._owner.discard(self)
