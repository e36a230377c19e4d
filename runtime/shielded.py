"""Work that its caller may leave but not cut off halfway."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_shielded(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] | None = None) -> T:
    """Awaits work that has several steps of which none shall be missing: where the caller is cancelled, `left` is
    called, and the work is finished first. The work itself has to be bounded in time."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if on_cancel:
            on_cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # or asyncio logs that nobody has asked for the outcome
        raise
