"""Background work that starts once what it needs is there, and must not end while the process lives."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn

from runtime.backoff import Backoff

log = logging.getLogger(__name__)

READY_POLL_INTERVAL = 1.0
"""Seconds between two checks whether what the work needs is there."""

RESTART_PAUSES = (0.5, 30.0)
"""The first and the longest pause before work is restarted, in seconds."""

STABLE_TIME = 60.0
"""Seconds after which a run counts as a success: the next pause is a short one again."""

Check = Callable[[], Awaitable[bool]]


@dataclass
class Job:
    """Work that should never return."""

    name: str
    """A noun for the log."""
    work: Callable[[], Awaitable[object]]
    ready: Check | None = None
    """Returns whether what the work needs is there. The work starts once it is."""
    failures: int = 0
    """How often the work failed, returned, or was cancelled from within."""


@asynccontextmanager
async def supervised(*jobs: Job) -> AsyncGenerator[None, None]:
    """Supervises jobs until the end of the block, where they are cancelled. Waits until they have ended."""
    tasks = [asyncio.create_task(supervise(job)) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def supervise(job: Job) -> NoReturn:
    """Runs a job, and restarts it if it fails, returns or is cancelled from within."""
    name = job.name
    clock = asyncio.get_running_loop().time
    backoff = Backoff(*RESTART_PAUSES)
    while True:
        start = clock()
        try:
            if job.ready:
                await _until_ready(name, job.ready)
            await job.work()
            log.error("%s exited unexpectedly; restarting", name)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.exception("%s awaited something that was cancelled; restarting", name)
        except Exception:
            log.exception("%s failed; restarting", name)
        job.failures += 1
        if clock() - start > STABLE_TIME:
            backoff.reset()
        await asyncio.sleep(backoff.next())


async def _until_ready(name: str, ready: Check) -> None:
    """Waits until a check returns true. A check that fails is logged, and counts as false."""
    while True:
        try:
            if await ready():
                return
        except Exception:
            log.exception("%s: cannot tell whether it is ready", name)
        await asyncio.sleep(READY_POLL_INTERVAL)
