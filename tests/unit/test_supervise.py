"""Background work is restarted, whatever ended it."""

import asyncio
import logging

import pytest

from runtime import supervise as module
from runtime.supervise import Job, supervise


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_PAUSES", (0.001, 0.002))


class Work:
    """Ends in another way each time; the fourth time it stays."""

    def __init__(self) -> None:
        self.runs = 0
        self.stays = asyncio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        match self.runs:
            case 1:
                raise RuntimeError("broken")
            case 2:
                inner = asyncio.get_running_loop().create_future()
                inner.cancel()
                await inner
            case 3:
                return
            case _:
                pass
        self.stays.set()
        await asyncio.Event().wait()


async def test_work_that_fails_or_ends_is_restarted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(supervise(Job("the work", work)))
        await asyncio.wait_for(work.stays.wait(), 5)
    assert [record.getMessage() for record in caplog.records] == [
        "the work failed; restarting",
        "the work awaited something that was cancelled; restarting",
        "the work exited unexpectedly; restarting",
    ]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.runs == 4, "a cancelled supervisor ends"


async def test_work_starts_once_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_POLL_INTERVAL", 0.001)
    steps: list[str] = []
    started = asyncio.Event()

    async def ready() -> bool:
        steps.append("check")
        return len(steps) == 3

    async def work() -> None:
        steps.append("work")
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervise(Job("the work", work, ready)))
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()
    assert steps == ["check", "check", "check", "work"]
