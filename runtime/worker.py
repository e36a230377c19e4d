"""Work in the background that goes on as long as the process lives."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from runtime.errors import ApiError
from runtime.logs import LogOnce

log = logging.getLogger(__name__)


class Worker:
    """Repeats a step: at once while there is more to do, else when woken or after an interval."""

    def __init__(self, name: str, step: Callable[[], Awaitable[bool]], interval: float) -> None:
        """Creates the worker.

        Args:
            name: A noun for the log.
            step: Does a part of the work. Returns whether there is more to do.
            interval: Seconds between two steps. They vary a little, so that replicas do not work at the same time.
        """
        self.name = name
        self.interval = interval
        self.failures = 0
        """How many steps have failed."""
        self._success_time = time.monotonic()
        self._step = step
        self._woken = asyncio.Event()
        self._log_once = LogOnce(log, logging.WARNING)

    @property
    def age(self) -> float:
        """Seconds since a step succeeded; if none did, since the worker was created."""
        return time.monotonic() - self._success_time

    def wake(self) -> None:
        """Makes the next step begin now, or once the present one has ended."""
        self._woken.set()

    async def run(self) -> None:
        """Runs until it is cancelled. If a step fails, the next step comes after the interval.

        The message of an ApiError is logged once, until a step succeeds.
        """
        while True:
            self._woken.clear()
            if not await self._try_step():
                await self._pause()

    async def _try_step(self) -> bool:
        try:
            more = await self._step()
        except ApiError as error:
            self._log_once(f"{self.name}: {error.text}")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.exception("%s: a step awaited something that was cancelled", self.name)
        except Exception:
            log.exception("%s failed", self.name)
        else:
            self._log_once.reset()
            self._success_time = time.monotonic()
            return more
        self.failures += 1
        return False

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self.interval * random.uniform(0.8, 1.2)):  # noqa: S311 - no secret
                await self._woken.wait()
        except TimeoutError:
            pass
