"""The logs of the orders that are followed in this process, and who follows them."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TypeVar
from uuid import UUID

from order.domain import StatusEvent
from order.store import LogEntry, OrderStore
from runtime.backoff import Backoff
from runtime.errors import ApiError, unavailable
from runtime.subscriptions import Subscription, SubscriptionSet
from runtime.topics import Topics
from runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

MAX_LOGS_PER_READ = 500
"""Logs that one statement reads."""

READ_RETRY_PAUSE = (0.1, 2.0)
"""Seconds before logs are read again after a failure, at first and at most."""

W = TypeVar("W", bound=Wakeup)


class LogReader:
    """Reads the logs that subscriptions request, in batches."""

    def __init__(self, orders: OrderStore, topics: Topics[StatusEvent]) -> None:
        self._orders = orders
        self._topics = topics

    async def run(self) -> None:
        """Reads what is requested. Never returns."""
        backoff = Backoff(*READ_RETRY_PAUSE)
        while True:
            await self._topics.changed()
            requests = self._topics.take_requests(MAX_LOGS_PER_READ)
            try:
                await self._read(requests)
                backoff.reset()
            except Exception as error:
                if not isinstance(error, ApiError):
                    log.exception("reading event logs failed")
                self._topics.put_back(requests)
                await asyncio.sleep(backoff.next())

    async def _read(self, requests: Mapping[str, int]) -> None:
        # Whatever is known before the read was committed before it: a log without it is that of a restored database.
        known = {key: self._topics.newest(key) for key in requests}
        entries = await self._orders.logs([UUID(key) for key in requests])
        logs = {str(order_id): _events(rows) for order_id, rows in groupby(entries, key=lambda entry: entry.id)}
        for key, request in requests.items():
            events = logs.get(key)
            if events and not _contradicts(events, known[key]):
                self._topics.load(key, request, events)
            else:
                self._topics.mark_missing(key, request)


def _contradicts(events: Sequence[StatusEvent], known: StatusEvent | None) -> bool:
    """Whether a log that was read cannot follow from what was known of it."""
    if known is None or known.version < events[0].version:
        return False
    return known.status not in (event.status for event in events if event.version == known.version)


def _events(entries: Iterable[LogEntry]) -> list[StatusEvent]:
    """Returns an order's log. Where its entries were pruned by age, the state is its one event."""
    events: list[StatusEvent] = []
    for entry in entries:
        if entry.version is None or entry.status is None or entry.create_time is None:
            return [StatusEvent(entry.state_version, entry.state_status, entry.state_time)]
        events.append(StatusEvent(entry.version, entry.status, entry.create_time, entry.traceparent))
    return events


class Followers:
    """The calls of this process that follow orders."""

    def __init__(self, topics: Topics[StatusEvent]) -> None:
        self.topics = topics
        self.feeds = 0
        """The calls that follow many orders."""
        self._calls: set[Wakeup] = set()
        self._refusal = ""

    def __len__(self) -> int:
        return len(self._calls)

    @contextmanager
    def follow(self, order_id: str, after_version: int) -> Iterator[Subscription[StatusEvent]]:
        """Follows one order after a version.

        Raises:
            ApiError: UNAVAILABLE, also from the subscription's waits: orders cannot be followed here any more.
        """
        with (
            self._registered(Wakeup()) as wakeup,
            Subscription(self.topics, order_id, after_version, wakeup=wakeup) as subscription,
        ):
            yield subscription

    @contextmanager
    def follow_many(self) -> Iterator[SubscriptionSet[StatusEvent]]:
        """Follows any number of orders.

        Raises:
            ApiError: UNAVAILABLE, also from the set's waits: orders cannot be followed here any more.
        """
        with self._registered(SubscriptionSet(self.topics)) as subscriptions, subscriptions:
            self.feeds += 1
            try:
                yield subscriptions
            finally:
                self.feeds -= 1

    @contextmanager
    def _registered(self, call: W) -> Iterator[W]:
        if self._refusal:
            raise unavailable(self._refusal)
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)

    def close(self, reason: str = "the server is shutting down") -> None:
        """Ends every call with UNAVAILABLE: its client continues at another replica, after the last version seen."""
        self._refusal = reason
        for call in self._calls:
            call.close(unavailable(reason))

    def set_available(self, available: bool) -> None:
        """Says whether events reach this process.

        While they do not, it keeps no call: a stream without events would look as if nothing happened to its order.
        """
        if available:
            self._refusal = ""
        else:
            self.close("this replica cannot stream order events at present; reconnect")
