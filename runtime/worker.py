"""Work that goes on in the background for as long as the process lives."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from runtime.errors import ApiError

log = logging.getLogger(__name__)


class Seldom:
    """Whether it is time to say something again that may be so very often: `if seldom(): log…`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


class Worker:
    """Repeats a step: again at once while it says that there is more to do, else when woken or after an interval."""

    def __init__(self, name: str, step: Callable[[], Awaitable[bool]], interval: float) -> None:
        """`interval` is in seconds; it is varied a little, so that replicas do not work in step."""
        self._name = name
        self._step = step
        self._interval = interval
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Never returns, and no failure ends it: what is left undone is done in a later step."""
        said = ""
        while True:
            self._woken.clear()
            more = False
            try:
                more = await self._step()
                said = ""
            except ApiError as error:
                if error.text != said:
                    log.warning("%s: %s", self._name, error.text)
                    said = error.text
            except Exception:
                log.exception("%s failed", self._name)
            if not more:
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._interval * random.uniform(0.8, 1.2)):  # noqa: S311 - no secret
                await self._woken.wait()
        except TimeoutError:
            pass
