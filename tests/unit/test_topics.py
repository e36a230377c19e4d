"""Topics: each reader gets each version once and in order, however logs, events and readers come together."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.subscriptions import LogNotFound, LogRewound, Subscription
from runtime.topics import Topics
from runtime.wakeup import Wakeup

LAST = 5


@dataclass(frozen=True)
class Event:
    version: int

    @property
    def final(self) -> bool:
        return self.version == LAST


def log(last: int, first: int = 1) -> list[Event]:
    return [Event(version) for version in range(first, last + 1)]


class Reader(Wakeup):
    """A reader of one topic, and how often it was notified."""

    def __init__(self, topics: Topics[Event], key: str = "a", after: int = 0, *, refresh: bool = False) -> None:
        super().__init__()
        self.notified = 0
        self.log = Subscription(topics, key, after, wakeup=self, refresh=refresh)

    def wake(self) -> None:
        self.notified += 1
        super().wake()

    def versions(self) -> list[int]:
        return [event.version for event in self.log.take()]


def requests(topics: Topics[Event]) -> list[tuple[str, int]]:
    """Takes what is requested: keys, with the number of each request."""
    return list(topics.take_requests(100).items())


def test_first_reader_requests_log_and_second_does_not() -> None:
    topics: Topics[Event] = Topics()
    first, second = Reader(topics), Reader(topics)
    assert requests(topics) == [("a", 1)]
    assert not first.log.answered
    topics.load("a", 1, log(2))
    assert first.notified == second.notified == 1
    assert first.versions() == second.versions() == [1, 2]
    assert first.versions() == []


def test_late_reader_takes_what_is_known() -> None:
    topics: Topics[Event] = Topics()
    Reader(topics)
    assert requests(topics) == [("a", 1)]
    topics.load("a", 1, log(3))
    late = Reader(topics, after=1)
    assert late.log.answered
    assert late.versions() == [2, 3]
    assert requests(topics) == []


def test_empty_log_is_an_answer() -> None:
    topics: Topics[Event] = Topics()
    reader = Reader(topics)
    topics.load("a", 1, [])
    assert reader.notified == 1
    assert reader.log.answered
    assert reader.versions() == []


def test_event_waits_for_log() -> None:
    """Published before the log was read, it notifies nobody: what comes before it is not known."""
    topics: Topics[Event] = Topics()
    reader = Reader(topics)
    topics.publish("a", Event(2))
    assert reader.notified == 0
    assert reader.versions() == []
    topics.load("a", 1, log(1))
    assert reader.versions() == [1, 2]


def test_hole_is_filled_before_anything_else() -> None:
    topics: Topics[Event] = Topics()
    reader = Reader(topics)
    assert requests(topics) == [("a", 1)]
    topics.load("a", 1, log(1))
    topics.publish("a", Event(3))
    assert requests(topics) == [("a", 2)]
    assert reader.versions() == [1]
    topics.load("a", 2, log(3))
    assert reader.versions() == [2, 3]


def test_pruned_log_begins_where_it_begins() -> None:
    topics: Topics[Event] = Topics()
    reader = Reader(topics, after=1)
    topics.load("a", 1, log(4, first=4))
    assert reader.versions() == [4]


def test_reader_ahead_of_log_gets_only_what_comes_after() -> None:
    topics: Topics[Event] = Topics()
    reader = Reader(topics, after=3)
    topics.load("a", 1, log(2))
    assert reader.versions() == []
    topics.publish("a", Event(3))
    topics.publish("a", Event(4))
    assert reader.versions() == [4]


def test_reader_is_done_after_final_event() -> None:
    topics: Topics[Event] = Topics()
    reader = Reader(topics)
    topics.load("a", 1, log(LAST))
    assert not reader.log.done
    reader.versions()
    assert reader.log.done


def test_missing_log_is_told_and_requested_again_next_time() -> None:
    topics: Topics[Event] = Topics()
    reader = Reader(topics)
    assert requests(topics) == [("a", 1)]
    topics.mark_missing("a", 1)
    assert reader.notified == 1
    with pytest.raises(LogNotFound):
        reader.versions()
    reader.log.close()
    assert not Reader(topics).log.answered
    assert requests(topics) == [("a", 2)]


def test_last_reader_gone_releases_key() -> None:
    topics: Topics[Event] = Topics(keep_released=True)
    first, second = Reader(topics), Reader(topics)
    first.log.close()
    assert "a" in topics
    second.log.close()
    assert "a" not in topics
    assert topics.take_released(100) == ["a"]
    topics.publish("a", Event(1))
    topics.load("a", 1, log(1))
    assert len(topics) == 0, "what nobody follows is not kept"


def test_refresh_all_leaves_out_final_logs() -> None:
    topics: Topics[Event] = Topics()
    readers = Reader(topics, "a"), Reader(topics, "b")
    assert requests(topics) == [("a", 1), ("b", 2)]
    topics.load("a", 1, log(LAST))
    topics.refresh_all()
    assert requests(topics) == [("b", 3)]
    assert not readers[1].log.answered


def test_refresh_is_answered_by_its_own_read() -> None:
    """What was read before a reader came does not say how the log is since; but it can be taken."""
    topics: Topics[Event] = Topics()
    reader = Reader(topics)
    topics.load("a", 1, log(1))
    requests(topics)
    second = Reader(topics, refresh=True)
    assert requests(topics) == [("a", 2)]
    topics.load("a", 1, log(2))
    assert not second.log.answered
    assert reader.versions() == second.versions() == [1, 2]
    before = second.notified
    topics.load("a", 2, log(2))
    assert second.log.answered
    assert second.notified == before + 1, "that nothing is new is what it waits for"


def test_final_log_is_not_read_again() -> None:
    topics: Topics[Event] = Topics()
    Reader(topics)
    topics.load("a", 1, log(LAST - 1))
    requests(topics)
    reader = Reader(topics, refresh=True)
    assert requests(topics) == [("a", 2)]
    topics.publish("a", Event(LAST))
    again = Reader(topics, refresh=True)
    assert reader.log.answered
    assert again.log.answered
    assert requests(topics) == []


def test_answer_to_topic_before_is_dropped() -> None:
    """It may begin where the reader of that topic ended: taken as the log, it would have a hole at its beginning."""
    topics: Topics[Event] = Topics()
    Reader(topics).log.close()
    reader = Reader(topics)
    assert requests(topics) == [("a", 2)]
    topics.load("a", 1, [Event(2)])
    topics.mark_missing("a", 1)
    assert not reader.log.answered
    topics.load("a", 2, log(2))
    assert reader.versions() == [1, 2]


def test_reader_that_has_seen_more_refreshes_log() -> None:
    topics: Topics[Event] = Topics()
    Reader(topics)
    requests(topics)
    topics.load("a", 1, log(1))
    ahead = Reader(topics, after=2)
    assert requests(topics) == [("a", 2)]
    topics.load("a", 2, log(1))
    with pytest.raises(LogRewound):
        ahead.log.check()
    ahead.log.restart()
    assert ahead.versions() == [1]


def test_missing_after_load_is_a_rewind() -> None:
    topics: Topics[Event] = Topics()
    reader = Reader(topics)
    topics.load("a", 1, log(1))
    topics.refresh_all()
    topics.mark_missing("a", 2)
    with pytest.raises(LogRewound):
        reader.versions()


def test_missing_does_not_answer_later_refresh() -> None:
    """The order may have been placed between the two reads."""
    topics: Topics[Event] = Topics()
    Reader(topics)
    requests(topics)
    second = Reader(topics, refresh=True)
    topics.mark_missing("a", 1)
    assert not second.log.answered
    topics.load("a", 2, log(1))
    assert second.versions() == [1]


def test_requests_that_wait_are_shared() -> None:
    """One read answers all who came before it began."""
    topics: Topics[Event] = Topics()
    readers = [Reader(topics, after=number) for number in range(3)]
    assert requests(topics) == [("a", 1)]
    topics.load("a", 1, log(2))
    assert all(reader.log.answered for reader in readers)


def test_failed_reader_ends_its_wait_with_error() -> None:
    async def wait() -> None:
        topics: Topics[Event] = Topics()
        with Subscription(topics, "a") as subscription:
            topics.fail(["a", "unknown"], ConnectionError("lost"))
            with pytest.raises(ConnectionError, match="lost"):
                await subscription.ready(1)

    asyncio.run(wait())


Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.just(("commit", 0)),
        st.tuples(st.just("poll"), st.integers(0, LAST)),
        st.tuples(st.just("read"), st.integers(0, LAST)),
        st.just(("answer", 0)),
        st.just(("reconnect", 0)),
        st.tuples(st.just("follow"), st.integers(0, LAST + 1)),
        st.tuples(st.just("take"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(steps)
def test_each_version_comes_once_and_in_order(steps: list[Step]) -> None:
    """Whatever the sequence of steps, in the end every reader has every event once.

    A log grows. A tailer publishes any part of it, again and in any order. Reads are answered late. Readers come at any
    time and take when they like.
    """
    topics: Topics[Event] = Topics()
    committed = 0
    reads: list[tuple[int, list[Event]]] = []
    readers: list[tuple[int, list[int], Reader]] = []
    for step, number in steps:
        if step == "commit":
            committed = min(LAST, committed + 1)
        elif step == "poll" and 0 < number <= committed:
            topics.publish("a", Event(number))
        elif step == "read" and committed:  # an order's first event is as old as the order
            # It was requested, so its snapshot is from now; its answer comes later.
            reads.extend((request, log(committed)) for request in topics.take_requests(1).values())
        elif step == "answer" and reads:
            topics.load("a", *reads.pop(0))
        elif step == "reconnect":
            topics.refresh_all()
        elif step == "follow":
            readers.append((number, [], Reader(topics, after=number)))
        elif step == "take" and number < len(readers):
            readers[number][1].extend(readers[number][2].versions())
    for answer in reads:
        topics.load("a", *answer)
    topics.refresh_all()
    for request in topics.take_requests(1).values():
        topics.load("a", request, log(committed))
    for after, seen, reader in readers:
        seen.extend(reader.versions())
        assert seen == list(range(after + 1, committed + 1))
        assert reader.log.answered
        assert reader.log.done == (committed == LAST)
