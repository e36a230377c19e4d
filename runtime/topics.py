"""Event logs that somebody watches, in memory: one topic per watched key, shared by all of its watchers.

A watcher is an index into its topic's events, not a queue: a slow one costs what a quick one does. This suits logs that
are short by nature (an order has at most five events) and numbered without a gap.

The owner is told which keys to get the log of (`request`), and answers with `fill` or `miss`; what happens meanwhile
it hands in with `publish`. In whatever order these come, a watcher sees each version once and in order: register first,
then read the log, then drop what is not newer.
"""

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Event(Protocol):
    """An entry of a log. `version` counts from 1; after a `final` one nothing comes."""

    @property
    def version(self) -> int: ...

    @property
    def final(self) -> bool: ...


E = TypeVar("E", bound=Event)


class Topic(Generic[E]):
    """What is known of one key's log."""

    __slots__ = ("ahead", "asked", "events", "key", "loaded", "missing", "watchers")

    def __init__(self, key: str) -> None:
        self.key = key
        self.loaded = False
        """The log was read since the topic exists: `events` has no hole at its beginning."""
        self.missing = False
        self.asked = False
        """The log has to be read again: somebody wants to know how it is now."""
        self.events: list[E] = []
        self.ahead: dict[int, E] = {}
        """Events that came before an earlier one did."""
        self.watchers: set[Watcher[E]] = set()

    @property
    def version(self) -> int:
        """The newest version known without a hole before it; 0 for none."""
        return self.events[-1].version if self.events else 0

    @property
    def final(self) -> bool:
        return bool(self.events) and self.events[-1].final

    @property
    def answered(self) -> bool:
        """What was asked about the log is known."""
        return self.missing or (self.loaded and (self.final or not self.asked))

    def merge(self, events: Iterable[E]) -> bool:
        """Takes events in; whether something became readable."""
        for event in events:
            if event.version > self.version:
                self.ahead[event.version] = event
        if not self.loaded or not self.ahead:
            return False
        grown = False
        if not self.events:
            # The log's oldest entries may have been pruned: it begins where it begins.
            self.events.append(self.ahead.pop(min(self.ahead)))
            grown = True
        while following := self.ahead.pop(self.version + 1, None):
            self.events.append(following)
            grown = True
        return grown


class Watcher(Generic[E]):
    """One reader of a topic. `notify` is called, with the watcher, when there may be something to take."""

    __slots__ = ("notify", "topic", "version")

    def __init__(self, topic: Topic[E], after_version: int, notify: Callable[["Watcher[E]"], None]) -> None:
        self.topic = topic
        self.version = after_version
        self.notify = notify

    def take(self) -> list[E]:
        """What is new since the last call, in order."""
        events = self.topic.events
        if not events or events[-1].version <= self.version:
            return []
        start = max(0, self.version + 1 - events[0].version)
        self.version = events[-1].version
        return events[start:]

    @property
    def done(self) -> bool:
        """Nothing more will come: everything was taken, and the last event is final."""
        return self.topic.final and self.version >= self.topic.version


class Topics(Generic[E]):
    """All topics of a process."""

    def __init__(self, request: Callable[[str], None], release: Callable[[str], None] | None = None) -> None:
        """`request(key)`: get the key's log, then call `fill` or `miss`. `release(key)`: nobody watches it any more."""
        self._request = request
        self._release = release
        self._topics: dict[str, Topic[E]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._topics

    def __len__(self) -> int:
        return len(self._topics)

    def keys(self) -> list[str]:
        return list(self._topics)

    def version(self, key: str) -> int:
        """The newest version known of a watched key; 0 for none."""
        topic = self._topics.get(key)
        return topic.version if topic else 0

    def newest(self, key: str) -> E | None:
        """The newest event known of a watched key."""
        topic = self._topics.get(key)
        return topic.events[-1] if topic and topic.events else None

    def watch(self, key: str, after_version: int, notify: Callable[[Watcher[E]], None]) -> Watcher[E]:
        """A new reader of what comes after a version. `notify` tells of what comes from now on; what is known already
        (`topic.answered`) is there to take."""
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(key)
            self._request(key)
        watcher = Watcher(topic, after_version, notify)
        topic.watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher[E]) -> None:
        topic = watcher.topic
        topic.watchers.discard(watcher)
        if not topic.watchers and self._topics.get(topic.key) is topic:
            del self._topics[topic.key]
            if self._release:
                self._release(topic.key)

    def renew(self, key: str) -> None:
        """Has the log of a watched key read again: the topic is not `answered` until then. Meanwhile, what is known
        can be taken. A log that is over stays as it is."""
        topic = self._topics.get(key)
        if topic is not None and not topic.final:
            topic.asked = True
            self._request(key)

    def fill(self, key: str, events: Iterable[E], *, latest: bool = True) -> None:
        """The key's log as it was at some time after it was requested, or what follows the version known. `latest` is
        False where it was requested once more since."""
        topic = self._topics.get(key)
        if topic is None:
            return
        waited = not topic.answered
        topic.loaded = True
        if latest:
            topic.asked = False
        if topic.merge(events) or (waited and topic.answered):
            self._tell(topic)
        if topic.ahead:
            self._request(key)

    def miss(self, key: str) -> None:
        """There is no such key, or its log is another one than was known. The next watcher asks again."""
        topic = self._topics.pop(key, None)
        if topic is not None:
            topic.missing = True
            self._tell(topic)

    def publish(self, key: str, event: E) -> None:
        """An event that has just happened. Where an earlier one is missing, the log is requested again."""
        topic = self._topics.get(key)
        if topic is None:
            return
        if topic.merge((event,)):
            self._tell(topic)
        if topic.loaded and topic.ahead:
            self._request(key)

    def request_all(self) -> None:
        """Events may have been missed: asks for every log that is not over again."""
        for topic in list(self._topics.values()):
            if not topic.final:
                self._request(topic.key)

    @staticmethod
    def _tell(topic: Topic[E]) -> None:
        for watcher in list(topic.watchers):
            watcher.notify(watcher)
