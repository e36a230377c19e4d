"""Readers of event logs (`runtime.topics`).

A subscription is an index into its topic's events, not a queue: a slow reader costs what a fast one does.
"""

import asyncio
from itertools import islice
from typing import Generic, Self

from runtime.topics import E, Topics
from runtime.wakeup import Wakeup


class LogError(Exception):
    """A log cannot be followed any further."""


class LogNotFound(LogError):
    """There is no such log."""


class LogRewound(LogError):
    """The log no longer holds what its reader has seen: its database was restored."""


class Subscription(Generic[E]):
    """Follows one log: iterates batches of events, in order, each event once; ends after the final one.

    The iteration raises LogNotFound if there is no such log, and LogRewound if the log no longer holds what this reader
    has seen. Leave its context to end it.
    """

    __slots__ = ("_awaited", "_topic", "_topics", "_wakeup", "version")

    def __init__(
        self,
        topics: Topics[E],
        key: str,
        after_version: int = 0,
        *,
        wakeup: Wakeup | None = None,
        refresh: bool = False,
    ) -> None:
        """Follows a log from now on.

        Args:
            topics: The topics that the log is one of.
            key: The key of the log.
            after_version: The last version that this reader has seen; 0 for none. If it is newer than what is known
                here, the log is read again first.
            wakeup: What the reader waits on, if it waits for more than this log.
            refresh: Read the log again in any case.
        """
        self._topics = topics
        self._wakeup = Wakeup() if wakeup is None else wakeup
        self._topic, self._awaited = topics.join(self, key, after_version, refresh=refresh)
        self.version = after_version
        """The last version that this reader has seen."""

    @property
    def key(self) -> str:
        """The key of the log."""
        return self._topic.key

    @property
    def answered(self) -> bool:
        """Whether the log is known as it was when this reader came, or later; also that there is none."""
        topic = self._topic
        return topic.missing or topic.loaded >= self._awaited or (topic.loaded > 0 and topic.final)

    @property
    def final(self) -> bool:
        """Whether the log is known to its end, although this reader may not have read that far."""
        return self._topic.final

    @property
    def done(self) -> bool:
        """Whether this reader has seen the final event."""
        return self._topic.final and self.version >= self._topic.version

    def check(self) -> None:
        """Checks, once the log is `answered`, that this reader can follow it.

        Raises:
            LogNotFound: There is no such log.
            LogRewound: The log is not the one that was seen, or has fewer versions than this reader has seen.
        """
        if self._topic.missing:
            raise LogRewound(self.key) if self._topic.loaded else LogNotFound(self.key)
        if self.version > self._topic.version:
            raise LogRewound(self.key)

    async def ready(self, timeout: float) -> None:
        """Waits until the log is `answered`, and checks it.

        Args:
            timeout: How long to wait, in seconds.

        Raises:
            TimeoutError: The log did not come in time.
            LogNotFound: There is no such log.
            LogRewound: The log does not hold what this reader has seen. `restart` and follow it from the beginning.
        """
        if not self.answered:
            async with asyncio.timeout(timeout):
                while not self.answered:
                    await self._wakeup.wait()
        self.check()

    def restart(self) -> None:
        """Follows the log from its beginning."""
        self.version = 0

    @property
    def unread(self) -> list[E]:
        """The events that `take` would return."""
        topic = self._topic
        if topic.version <= self.version:
            return []
        return topic.events[max(0, self.version + 1 - topic.events[0].version) :]

    def take(self) -> list[E]:
        """Returns the events since the last call, in order; none if nothing is new. Does not wait.

        Raises:
            LogNotFound: There is no such log.
            LogRewound: The log is not the one that was seen.
        """
        if self._topic.missing:
            self.check()
        events = self.unread
        self.version = max(self.version, self._topic.version)
        return events

    def notify(self) -> None:
        """Wakes the reader: there may be news."""
        self._wakeup.wake()

    def fail(self, error: Exception) -> None:
        """Ends the reader's wait with an error; the reader then closes the subscription."""
        self._wakeup.close(error)

    def close(self) -> None:
        """Ends the subscription. The topic goes with its last one."""
        self._topics.leave(self, self._topic)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[E]:
        while not (events := self.take()):
            if self.done:
                raise StopAsyncIteration
            await self._wakeup.wait()
        return events


class _Member(Subscription[E]):
    """A subscription of a set."""

    __slots__ = ("_owner",)

    def __init__(self, owner: "SubscriptionSet[E]", topics: Topics[E], key: str, after_version: int) -> None:
        super().__init__(topics, key, after_version, wakeup=owner, refresh=True)
        self._owner = owner

    def notify(self) -> None:
        self._owner.add_news(self.key)


class SubscriptionSet(Wakeup, Generic[E]):
    """Follows many logs for one reader. What has news is a set of keys: a reader that does not read costs no more."""

    __slots__ = ("_members", "_news", "_topics")

    def __init__(self, topics: Topics[E]) -> None:
        super().__init__()
        self._topics = topics
        self._members: dict[str, _Member[E]] = {}
        self._news: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def follow(self, key: str, after_version: int) -> None:
        """Follows a log after a version, in place of what was followed of it before.

        The log is read again, also where others follow it: the reader may have seen more elsewhere than is known here.
        """
        self.unfollow(key)
        member = self._members[key] = _Member(self, self._topics, key, after_version)
        if member.answered:
            self.add_news(key)

    def unfollow(self, key: str) -> None:
        """Follows a log no longer."""
        if member := self._members.pop(key, None):
            member.close()
        self._news.pop(key, None)

    def add_news(self, key: str) -> None:
        """Marks a log as one with news."""
        self._news[key] = None
        self.wake()

    async def updates(self, limit: int) -> list[Subscription[E]]:
        """Waits until logs have news, or until woken. Returns the subscriptions with news, at most `limit`."""
        await self.wait()
        keys = list(islice(self._news, limit))
        for key in keys:
            del self._news[key]
        if self._news:
            self.wake()
        return [self._members[key] for key in keys]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._members):
            self.unfollow(key)
