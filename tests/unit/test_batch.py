"""Requests that wait at the same time run in one batch, and succeed or fail by themselves."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from runtime import batch as module
from runtime.batch import Batcher, isolate_failures
from runtime.errors import ApiError, unavailable


class Desk:
    """Runs batches once it is open."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self._open = asyncio.Event()
        self.slow = asyncio.Event()

    async def __call__(self, requests: Sequence[str]) -> Sequence[str | Exception]:
        self.batches.append(list(requests))
        await (self.slow if "slow" in requests else self._open).wait()
        if "fire" in requests:
            raise RuntimeError("the desk burns")
        return [ValueError(each) if each == "bad" else each.upper() for each in requests]

    def open(self) -> None:
        self._open.set()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_behind_a_running_batch_share_the_next() -> None:
    desk = Desk()
    ask = Batcher("desk", desk)
    first = asyncio.create_task(ask("a"))
    await _settle()
    assert desk.batches == [["a"]]
    others = [asyncio.create_task(ask(each)) for each in "bcd"]
    await _settle()
    assert desk.batches == [["a"]]
    desk.open()
    assert await asyncio.gather(first, *others) == ["A", "B", "C", "D"]
    assert desk.batches == [["a"], ["b", "c", "d"]]


async def test_request_of_the_next_turns_joins_the_first() -> None:
    desk = Desk()
    desk.open()
    ask = Batcher("desk", desk)
    waiting = []
    for each in "abc":
        waiting.append(asyncio.create_task(ask(each)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert list(await asyncio.gather(*waiting)) == ["A", "B", "C"]
    assert desk.batches == [["a", "b", "c"]]


async def test_error_of_one_request_is_raised_to_it_alone() -> None:
    desk = Desk()
    desk.open()
    ask = Batcher("desk", desk)
    good, bad, fine = await asyncio.gather(ask("good"), ask("bad"), ask("fine"), return_exceptions=True)
    assert desk.batches == [["good", "bad", "fine"]]
    assert (good, fine) == ("GOOD", "FINE")
    assert isinstance(bad, ValueError)


async def test_failed_batch_fails_only_its_own_requests() -> None:
    desk = Desk()
    ask = Batcher("desk", desk)
    burnt = [asyncio.create_task(ask(each)) for each in ("fire", "b")]
    await _settle()
    later = asyncio.create_task(ask("c"))
    desk.open()
    found = await asyncio.gather(*burnt, return_exceptions=True)
    assert [str(each) for each in found] == ["the desk burns"] * 2
    assert await later == "C"


async def test_requests_with_one_key_share_no_batch() -> None:
    """While one waits or runs, other requests of its key run alone, beside the batch."""
    desk = Desk()
    number = itertools.count()
    seen: list[tuple[str, int]] = []

    async def run(requests: Sequence[tuple[str, int]]) -> Sequence[int]:
        await desk([key for key, _ in requests])
        seen.extend(requests)
        return [place for _, place in requests]

    ask = Batcher("desk", run, key=lambda request: request[0])
    waiting = [asyncio.create_task(ask((key, next(number)))) for key in "aabab"]
    desk.open()
    assert await asyncio.gather(*waiting) == [0, 1, 2, 3, 4]
    assert sorted(desk.batches) == [["a"], ["a"], ["a", "b"], ["b"]]
    assert sorted(seen) == [("a", 0), ("a", 1), ("a", 3), ("b", 2), ("b", 4)]
    assert await ask(("a", 5)) == 5
    assert sum(map(len, desk.batches)) == 6, "the key is free again"


async def test_request_that_runs_alone_raises_its_own_error() -> None:
    async def run(requests: Sequence[str]) -> Sequence[str]:
        await asyncio.sleep(0.01)
        return requests

    async def run_alone(requests: Sequence[str]) -> Sequence[Exception]:
        return [KeyError(*requests)]

    ask = Batcher[str, str]("desk", run, key=lambda request: request, run_alone=run_alone)
    first, second = await asyncio.gather(ask("a"), ask("a"), return_exceptions=True)
    assert first == "a"
    assert isinstance(second, KeyError)


async def test_requests_that_run_alone_are_bounded() -> None:
    desk = Desk()
    ask = Batcher("desk", desk, key=lambda request: request, max_waiting=2)
    waiting = [asyncio.create_task(ask("a")) for _ in range(2)]
    await _settle()
    with pytest.raises(ApiError, match="server overloaded: request queue is full"):
        await ask("a")
    desk.open()
    assert await asyncio.gather(*waiting) == ["A", "A"]


async def test_batch_has_a_maximum_size() -> None:
    desk = Desk()
    desk.open()
    ask = Batcher("desk", desk, max_size=2)
    assert await asyncio.gather(*(ask(each) for each in "abcde")) == list("ABCDE")
    assert desk.batches == [["a", "b"], ["c", "d"], ["e"]]


async def test_cancelled_callers_do_not_disturb_others() -> None:
    desk = Desk()
    ask = Batcher("desk", desk)
    first = asyncio.create_task(ask("a"))
    await _settle()
    second, third = (asyncio.create_task(ask(each)) for each in "bc")
    await _settle()
    first.cancel()  # runs
    second.cancel()  # waits
    desk.open()
    assert await third == "C"
    assert desk.batches == [["a"], ["c"]]


async def test_stalled_batch_delays_others_only_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALLED_BATCH_DELAY", 0.01)
    desk = Desk()
    desk.open()
    ask = Batcher("desk", desk, max_running=2)
    slow = asyncio.create_task(ask("slow"))
    await _settle()
    async with asyncio.timeout(5):
        assert list(await asyncio.gather(ask("a"), ask("b"))) == ["A", "B"]
        assert await ask("c") == "C"
    assert desk.batches == [["slow"], ["a", "b"], ["c"]]
    desk.slow.set()
    await slow


async def test_number_of_running_batches_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALLED_BATCH_DELAY", 0.01)
    desk = Desk()
    ask = Batcher("desk", desk, max_running=2)
    waiting = []
    for each in "abcd":
        waiting.append(asyncio.create_task(ask(each)))
        await asyncio.sleep(0.03)
    assert desk.batches == [["a"], ["b"]]
    desk.open()
    assert await asyncio.gather(*waiting) == list("ABCD")
    assert desk.batches == [["a"], ["b"], ["c", "d"]]


async def test_request_beyond_max_waiting_is_refused() -> None:
    desk = Desk()
    ask = Batcher("desk", desk, max_waiting=2)
    taken = asyncio.create_task(ask("a"))
    await _settle()
    waits = asyncio.create_task(ask("b"))
    await _settle()
    with pytest.raises(ApiError, match="server overloaded: request queue is full"):
        await ask("c")
    desk.open()
    assert list(await asyncio.gather(taken, waits)) == ["A", "B"]


async def test_batch_is_cancelled_with_its_last_caller() -> None:
    cancelled: list[Sequence[str]] = []

    async def run(requests: Sequence[str]) -> Sequence[str]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(requests)
            raise
        return requests

    ask = Batcher("desk", run)
    first, second = (asyncio.create_task(ask(each)) for each in "ab")
    await _settle()
    first.cancel()
    await _settle()
    assert cancelled == []
    second.cancel()
    await _settle()
    assert cancelled == [["a", "b"]]


async def test_cancelled_request_frees_its_place() -> None:
    desk = Desk()
    ask = Batcher("desk", desk, max_waiting=2)
    first = asyncio.create_task(ask("a"))
    await _settle()
    left = asyncio.create_task(ask("b"))
    await _settle()
    left.cancel()
    await _settle()
    third = asyncio.create_task(ask("c"))
    await _settle()
    desk.open()
    assert list(await asyncio.gather(first, third)) == ["A", "C"]
    assert desk.batches == [["a"], ["c"]]


async def test_request_cancelled_while_its_batch_starts_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_TURNS", 0)
    loop = asyncio.get_running_loop()
    batches: list[Sequence[str]] = []

    async def run(requests: Sequence[str]) -> Sequence[str]:
        batches.append(requests)
        await _settle()
        if "a" in requests:
            # After the next batch has its task, and before that begins.
            loop.call_soon(lambda: loop.call_soon(second.cancel))
        return requests

    ask = Batcher("desk", run)
    first = asyncio.create_task(ask("a"))
    await asyncio.sleep(0)
    second, third = (asyncio.create_task(ask(each)) for each in "bc")
    answers = await asyncio.gather(first, second, third, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert (answers[0], answers[2]) == ("a", "c")
    assert batches == [["a"], ["c"]]


async def test_check_queue_refuses_if_the_queue_is_full() -> None:
    desk = Desk()
    ask = Batcher("desk", desk, max_waiting=2)
    ask.check_queue()
    calls = [asyncio.create_task(ask("a"))]
    await _settle()
    calls.append(asyncio.create_task(ask("b")))
    await _settle()
    with pytest.raises(ApiError, match="server overloaded: request queue is full"):
        ask.check_queue()
    desk.open()
    await asyncio.gather(*calls)
    ask.check_queue()


class Table:
    """Stores all rows of a call or none."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.tries: list[str] = []

    async def __call__(self, requests: Sequence[str]) -> Sequence[str | Exception]:
        self.tries.append("".join(requests))
        if "away" in requests:
            raise unavailable("nobody is there")
        if "bad" in requests:
            raise ValueError("bad")
        self.rows += requests
        return requests


async def test_isolated_failure_fails_only_its_request() -> None:
    table = Table()
    first, bad, second = await isolate_failures(table, ["a", "bad", "b"])
    assert (first, second) == ("a", "b")
    assert isinstance(bad, ValueError)
    assert table.rows == ["a", "b"]
    (alone,) = await isolate_failures(table, ["bad"])
    assert isinstance(alone, ValueError)
    assert table.tries == ["abadb", "a", "bad", "b", "bad"]


async def test_api_error_is_raised_without_isolation() -> None:
    table = Table()
    with pytest.raises(ApiError, match="nobody is there"):
        await isolate_failures(table, ["a", "away", "b"])
    assert table.tries == ["aawayb"]


async def test_transient_error_stops_isolation() -> None:
    table = Table()

    async def run(requests: Sequence[str]) -> Sequence[str | Exception]:
        if len(requests) > 1:
            raise ValueError("one of them is bad")
        return await table(requests)

    first, *others = await isolate_failures(run, ["a", "away", "b", "c"])
    assert first == "a"
    assert [str(each) for each in others] == ["nobody is there"] * 3
    assert table.tries == ["a", "away"]


async def test_repeated_keys_run_alone_within_a_limit() -> None:
    """Otherwise a client that repeats one key would fill the queues of what the batch calls."""
    running = most = 0

    async def run(requests: Sequence[str]) -> Sequence[str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return requests

    ask = Batcher("test", run, key=lambda request: request, max_alone=16)
    assert set(await asyncio.gather(*(ask("same") for _ in range(200)))) == {"same"}
    assert 1 < most <= 16 + 1
