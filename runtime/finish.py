"""Work that its caller may leave but not cut off halfway."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Awaits work that has several steps of which none shall be missing: where the caller is cancelled, the work is
    finished first. The work itself has to be bounded in time."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await ended(task)
        raise


async def ended(task: "asyncio.Task[T]") -> None:
    """Waits for the end of a task that nobody asks for its outcome any more."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # or asyncio logs that nobody has asked
