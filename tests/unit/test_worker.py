"""Workers repeat their step, whatever happens to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from runtime import supervise
from runtime.errors import unavailable
from runtime.worker import Worker

HOUR = 3_600.0


class Steps:
    """A step that counts its runs, and does what is next in `outcomes`."""

    def __init__(self, *outcomes: bool | BaseException) -> None:
        self.outcomes = list(outcomes)
        self.runs = 0
        self.idle = asyncio.Event()
        """Set when all outcomes are used up."""

    async def __call__(self) -> bool:
        self.runs += 1
        outcome = self.outcomes.pop(0) if self.outcomes else False
        if not self.outcomes:
            self.idle.set()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@asynccontextmanager
async def running(worker: Worker, ready: supervise.Check | None = None) -> AsyncIterator[None]:
    job = supervise.Job("worker", worker.run, ready)
    task = asyncio.create_task(supervise.supervise(job) if ready else worker.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_step_runs_again_while_there_is_more() -> None:
    steps = Steps(True, True, False)
    async with running(Worker("test", steps, HOUR)):
        await steps.idle.wait()
        await asyncio.sleep(0.01)
    assert steps.runs == 3


async def test_woken_worker_runs_a_step() -> None:
    steps = Steps()
    worker = Worker("test", steps, HOUR)
    async with running(worker):
        await until(lambda: steps.runs == 1)
        worker.wake()
        await until(lambda: steps.runs == 2)


async def test_step_runs_after_the_interval() -> None:
    steps = Steps()
    async with running(Worker("test", steps, 0.01)):
        await until(lambda: steps.runs >= 3)


async def test_worker_waits_until_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that fails counts as no."""
    monkeypatch.setattr(supervise, "READY_POLL_INTERVAL", 0.001)
    asked = 0
    steps = Steps()

    async def ready() -> bool:
        nonlocal asked
        asked += 1
        assert steps.runs == 0
        if asked == 2:
            raise OSError("no such name")
        return asked > 3

    async with running(Worker("test", steps, HOUR), ready):
        await steps.idle.wait()
    assert asked == 4


async def test_no_failure_ends_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Not even that something was cancelled which the step awaits."""
    steps = Steps(KeyError("fault"), asyncio.CancelledError(), unavailable("away"), False)
    async with running(Worker("thing", steps, 0.001)):
        await until(lambda: steps.runs > 4)
    assert [each.message for each in caplog.records] == [
        "thing failed",
        "thing: a step awaited something that was cancelled",
        "thing: away",
    ]


async def test_same_message_is_logged_once_until_a_success(caplog: pytest.LogCaptureFixture) -> None:
    away = unavailable("away")
    steps = Steps(away, away, unavailable("full"), False, away)
    async with running(Worker("thing", steps, 0.001)):
        await steps.idle.wait()
        await until(lambda: len(caplog.records) == 3)
    assert [each.message for each in caplog.records] == ["thing: away", "thing: full", "thing: away"]
