"""Topics: each watcher sees each version once and in order, however logs, events and watchers come together."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from runtime.topics import Topics, Watcher

LAST = 5


@dataclass(frozen=True)
class Event:
    version: int

    @property
    def final(self) -> bool:
        return self.version == LAST


def log(last: int, first: int = 1) -> list[Event]:
    return [Event(version) for version in range(first, last + 1)]


@dataclass
class Owner:
    """Topics, what they asked for, and whom they told."""

    requested: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    told: list[Watcher[Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.topics: Topics[Event] = Topics(self.requested.append, self.released.append)

    def watch(self, key: str = "a", after: int = 0) -> Watcher[Event]:
        return self.topics.watch(key, after, self.told.append)


def versions(watcher: Watcher[Event]) -> list[int]:
    return [event.version for event in watcher.take()]


def test_the_first_watcher_has_the_log_requested_and_the_second_does_not() -> None:
    owner = Owner()
    first, second = owner.watch(), owner.watch()
    assert owner.requested == ["a"]
    assert not first.topic.answered
    owner.topics.fill("a", log(2))
    assert owner.told.count(first) == owner.told.count(second) == 1
    assert versions(first) == versions(second) == [1, 2]
    assert versions(first) == []


def test_a_late_watcher_takes_what_is_known_already() -> None:
    owner = Owner()
    owner.watch()
    owner.topics.fill("a", log(3))
    late = owner.watch(after=1)
    assert late.topic.answered
    assert versions(late) == [2, 3]
    assert owner.requested == ["a"]


def test_an_empty_log_is_an_answer() -> None:
    owner = Owner()
    watcher = owner.watch()
    owner.topics.fill("a", [])
    assert owner.told == [watcher]
    assert versions(watcher) == []


def test_an_event_waits_for_the_log() -> None:
    """Published before the log was read, it tells nobody: what comes before it is not known."""
    owner = Owner()
    watcher = owner.watch()
    owner.topics.publish("a", Event(2))
    assert owner.told == []
    assert versions(watcher) == []
    owner.topics.fill("a", log(1))
    assert versions(watcher) == [1, 2]


def test_a_hole_is_filled_before_anything_goes_on() -> None:
    owner = Owner()
    watcher = owner.watch()
    owner.topics.fill("a", log(1))
    owner.topics.publish("a", Event(3))
    assert owner.requested == ["a", "a"]
    assert versions(watcher) == [1]
    owner.topics.fill("a", log(3))
    assert versions(watcher) == [2, 3]


def test_a_log_whose_beginning_was_pruned_begins_where_it_begins() -> None:
    owner = Owner()
    watcher = owner.watch(after=1)
    owner.topics.fill("a", log(4, first=4))
    assert versions(watcher) == [4]


def test_a_watcher_ahead_of_the_log_gets_only_what_comes_after() -> None:
    owner = Owner()
    watcher = owner.watch(after=3)
    owner.topics.fill("a", log(2))
    assert versions(watcher) == []
    owner.topics.publish("a", Event(3))
    owner.topics.publish("a", Event(4))
    assert versions(watcher) == [4]


def test_a_watcher_is_done_when_it_took_a_final_event() -> None:
    owner = Owner()
    watcher = owner.watch()
    owner.topics.fill("a", log(LAST))
    assert not watcher.done
    watcher.take()
    assert watcher.done


def test_a_missing_key_is_told_and_asked_for_again_next_time() -> None:
    owner = Owner()
    watcher = owner.watch()
    owner.topics.miss("a")
    assert owner.told == [watcher]
    assert watcher.topic.missing
    owner.topics.unwatch(watcher)
    assert not owner.watch().topic.missing
    assert owner.requested == ["a", "a"]


def test_the_last_watcher_gone_releases_the_key() -> None:
    owner = Owner()
    first, second = owner.watch(), owner.watch()
    owner.topics.unwatch(first)
    assert "a" in owner.topics
    owner.topics.unwatch(second)
    assert "a" not in owner.topics
    assert owner.released == ["a"]
    owner.topics.publish("a", Event(1))
    owner.topics.fill("a", log(1))
    assert len(owner.topics) == 0, "what nobody watches is not kept"


def test_request_all_leaves_out_what_is_over() -> None:
    owner = Owner()
    owner.watch("a")
    owner.watch("b")
    owner.topics.fill("a", log(LAST))
    owner.requested.clear()
    owner.topics.request_all()
    assert owner.requested == ["b"]


def test_a_renewed_log_is_answered_when_the_latest_read_is_there() -> None:
    """What was read before somebody asked does not say how the log is since; but it can be taken."""
    owner = Owner()
    watcher = owner.watch()
    owner.topics.fill("a", log(1))
    owner.topics.renew("a")
    assert owner.requested == ["a", "a"]
    owner.topics.fill("a", log(2), latest=False)
    assert not watcher.topic.answered
    assert versions(watcher) == [1, 2]
    owner.told.clear()
    owner.topics.fill("a", log(2))
    assert watcher.topic.answered
    assert owner.told == [watcher], "that nothing is new is what it waits for"


def test_a_log_that_is_over_is_not_read_again() -> None:
    owner = Owner()
    watcher = owner.watch()
    owner.topics.fill("a", log(LAST - 1))
    owner.topics.renew("a")
    owner.topics.publish("a", Event(LAST))
    owner.topics.renew("a")
    assert watcher.topic.answered
    assert owner.requested == ["a", "a"]


Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.just(("commit", 0)),
        st.tuples(st.just("look"), st.integers(0, LAST)),
        st.tuples(st.just("read"), st.integers(0, LAST)),
        st.just(("answer", 0)),
        st.just(("reconnect", 0)),
        st.tuples(st.just("watch"), st.integers(0, LAST + 1)),
        st.tuples(st.just("take"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(steps)
def test_each_version_comes_once_and_in_order_whatever_happens_when(steps: list[Step]) -> None:
    """A log that grows; a tailer that publishes any part of it, again and in any sequence; reads whose answers come
    late; watchers that come at any time and take when they like. In the end all have everything."""
    owner = Owner()
    committed = 0
    reads: list[list[Event]] = []
    watchers: list[tuple[int, list[int], Watcher[Event]]] = []
    for step, number in steps:
        if step == "commit":
            committed = min(LAST, committed + 1)
        elif step == "look" and 0 < number <= committed:
            owner.topics.publish("a", Event(number))
        elif step == "read" and owner.requested:
            # It was requested, so its snapshot is from now; what it answers comes later.
            owner.requested.pop()
            reads.append(log(committed))
        elif step == "answer" and reads:
            owner.topics.fill("a", reads.pop(0))
        elif step == "reconnect":
            owner.topics.request_all()
        elif step == "watch":
            watchers.append((number, [], owner.watch(after=number)))
        elif step == "take" and number < len(watchers):
            watchers[number][1].extend(versions(watchers[number][2]))
    for answer in reads:
        owner.topics.fill("a", answer)
    owner.topics.request_all()
    owner.topics.fill("a", log(committed))
    for after, seen, watcher in watchers:
        seen.extend(versions(watcher))
        assert seen == list(range(after + 1, committed + 1))
        assert watcher.done == (committed == LAST)
