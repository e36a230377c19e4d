"""Background work that must not end while the process lives."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

log = logging.getLogger(__name__)

PAUSE = (0.5, 30.0)
"""Seconds before work that ended is begun again, the first time and at most."""

STABLE = 60.0
"""Seconds after which a run counts as a success: the next pause is a short one again."""


async def forever(name: str, work: Callable[[], Awaitable[object]]) -> NoReturn:
    """Runs `work`, which should never return; where it fails or returns all the same, says so and runs it again."""
    clock = asyncio.get_running_loop().time
    pause = PAUSE[0]
    while True:
        began = clock()
        try:
            await work()
            log.error("%s ended; it is begun again", name)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.exception("%s was cancelled by what it waited for; it is begun again", name)
        except Exception:
            log.exception("%s failed; it is begun again", name)
        if clock() - began > STABLE:
            pause = PAUSE[0]
        await asyncio.sleep(pause)
        pause = min(2 * pause, PAUSE[1])
