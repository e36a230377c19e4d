"""Event logs that somebody follows, in memory: one topic per log, shared by all of its readers.

This suits logs that are short by nature (an order has at most five events) and numbered without a gap.

The owner of the topics takes the requests for logs (`take_requests`), reads the logs, and hands each in with the number
of its request (`load`, `mark_missing`). It hands in what happens meanwhile with `publish`. Whatever the sequence, a
reader gets each version once and in order: register first, then read the log, then drop what is not newer.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Event(Protocol):
    """An entry of a log. `version` counts from 1; nothing comes after a `final` one."""

    @property
    def version(self) -> int:
        """Its place in the log, from 1."""
        ...

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        ...


E = TypeVar("E", bound=Event)


class Reader(Protocol):
    """Reads a topic (see `runtime.subscriptions`)."""

    def notify(self) -> None:
        """There may be news."""

    def fail(self, error: Exception) -> None:
        """Nothing will come any more."""


class Topic(Generic[E]):
    """What is known of one log.

    Requests are numbered across all topics, so a number tells which question an answer belongs to. `first` is the
    request that came with the topic, `wanted` the newest one that a reader waits for, and `loaded` the newest one that
    was answered; 0 for none.
    """

    __slots__ = ("events", "first", "key", "loaded", "missing", "out_of_order", "readers", "wanted")

    def __init__(self, key: str, request: int) -> None:
        self.key = key
        self.first = self.wanted = request
        self.loaded = 0
        self.missing = False
        self.events: list[E] = []
        self.out_of_order: dict[int, E] = {}
        """Events that came before an earlier one did, by version."""
        self.readers: set[Reader] = set()

    @property
    def version(self) -> int:
        """The newest version known without a hole before it; 0 for none."""
        return self.events[-1].version if self.events else 0

    @property
    def final(self) -> bool:
        """Whether the log is known to its end."""
        return bool(self.events) and self.events[-1].final

    def merge(self, events: Iterable[E]) -> bool:
        """Takes events in. Returns whether any became readable."""
        for event in events:
            if event.version > self.version:
                self.out_of_order[event.version] = event
        if not self.loaded or not self.out_of_order:
            return False
        grown = False
        if not self.events:
            # The log's oldest entries may have been pruned, so any version can be its first.
            self.events.append(self.out_of_order.pop(min(self.out_of_order)))
            grown = True
        while following := self.out_of_order.pop(self.version + 1, None):
            self.events.append(following)
            grown = True
        return grown

    def wake(self) -> None:
        """Tells each reader that there may be news."""
        for reader in self.readers:
            reader.notify()


class Topics(Generic[E]):
    """All topics of a process."""

    def __init__(self, *, keep_released: bool = False) -> None:
        """With `keep_released`, the keys that nobody follows any more are kept for `take_released`."""
        self._topics: dict[str, Topic[E]] = {}
        self._newest_request = 0
        self._requested: dict[str, int] = {}
        self._released: dict[str, None] | None = {} if keep_released else None
        self._changed = asyncio.Event()

    def __contains__(self, key: str) -> bool:
        return key in self._topics

    def __len__(self) -> int:
        return len(self._topics)

    def keys(self) -> list[str]:
        """Returns the keys of the logs that are followed."""
        return list(self._topics)

    def newest(self, key: str) -> E | None:
        """Returns the newest event known of a followed log."""
        topic = self._topics.get(key)
        return topic.events[-1] if topic and topic.events else None

    def version(self, key: str) -> int:
        """Returns the newest version known of a followed log; 0 for none."""
        event = self.newest(key)
        return event.version if event else 0

    # What readers call.

    def join(self, reader: Reader, key: str, after_version: int, *, refresh: bool = False) -> tuple[Topic[E], int]:
        """Adds a reader to the topic of a key.

        Args:
            reader: Is notified of news from now on.
            key: The key of the log.
            after_version: The last version that the reader has seen. If it is newer than what is known here, the log is
                read again.
            refresh: Read the log again in any case, unless it is final.

        Returns:
            The topic, and the number of the request whose answer the reader has to wait for.
        """
        topic = self._topics.get(key)
        if topic is None:
            if self._released:
                self._released.pop(key, None)
            topic = self._topics[key] = Topic(key, self._request(key))
            awaited = topic.first
        elif not topic.final and (refresh or after_version > topic.version):
            awaited = topic.wanted = self._request(key)
        else:
            awaited = topic.first
        topic.readers.add(reader)
        return topic, awaited

    def leave(self, reader: Reader, topic: Topic[E]) -> None:
        """Removes a reader, and the topic with its last one."""
        topic.readers.discard(reader)
        if not topic.readers and self._topics.get(topic.key) is topic:
            del self._topics[topic.key]
            self._requested.pop(topic.key, None)
            if self._released is not None:
                self._released[topic.key] = None
                self._changed.set()

    # What the owner calls.

    @property
    def requested(self) -> bool:
        """Whether logs are requested that the owner has not taken yet."""
        return bool(self._requested)

    async def changed(self) -> None:
        """Waits until there is something to take."""
        while not self._requested and not self._released:
            self._changed.clear()
            await self._changed.wait()

    def take_requests(self, limit: int) -> dict[str, int]:
        """Returns the keys of logs to read, at most `limit`, each with the number of its request.

        The owner reads the logs after this call, and hands each in with its number.
        """
        taken = dict(islice(self._requested.items(), limit))
        for key in taken:
            del self._requested[key]
        return taken

    def put_back(self, requests: dict[str, int]) -> None:
        """Puts requests back that were taken and could not be answered."""
        for key, request in requests.items():
            if key in self._topics:
                self._requested.setdefault(key, request)
                self._changed.set()

    def take_released(self, limit: int) -> list[str]:
        """Returns the keys that nobody follows any more, at most `limit`."""
        released = self._released or {}
        taken = list(islice(released, limit))
        for key in taken:
            del released[key]
        return taken

    def load(self, key: str, request: int, events: Iterable[E]) -> None:
        """Takes the answer to a request in: the log, or what follows the version known of it.

        An answer to what was asked before the topic existed is dropped: it may begin where an earlier topic ended.
        """
        topic = self._topics.get(key)
        if topic is None or request < topic.first:
            return
        awaited = topic.loaded < topic.wanted
        topic.loaded = max(topic.loaded, request)
        if topic.merge(events) or awaited:
            topic.wake()
        if topic.out_of_order:
            self._request(key)

    def mark_missing(self, key: str, request: int) -> None:
        """Takes an answer in: there is no such log, or it is not the one that was known.

        The topic ends; the next reader requests the log again. Where a reader has requested it once more since, the
        answer to that request counts.
        """
        topic = self._topics.get(key)
        if topic is not None and request >= topic.wanted:
            del self._topics[key]
            self._requested.pop(key, None)
            topic.missing = True
            topic.wake()

    def publish(self, key: str, event: E) -> None:
        """Takes an event in that has just happened. Where an earlier one is missing, the log is requested again."""
        topic = self._topics.get(key)
        if topic is None:
            return
        if topic.merge((event,)):
            topic.wake()
        if topic.loaded and topic.out_of_order:
            self._request(key)

    def refresh_all(self) -> None:
        """Requests every log that is not final again: events may have been missed."""
        for topic in self._topics.values():
            if not topic.final:
                self._request(topic.key)

    def fail(self, keys: Iterable[str], error: Exception) -> None:
        """Ends the wait of every reader of these logs with an error."""
        for key in keys:
            if topic := self._topics.get(key):
                for reader in topic.readers:
                    reader.fail(error)

    def _request(self, key: str) -> int:
        """Returns the number of the request, also of one that waits to be taken: its answer will be as new."""
        if key not in self._requested:
            self._newest_request += 1
            self._requested[key] = self._newest_request
            self._changed.set()
        return self._requested[key]
