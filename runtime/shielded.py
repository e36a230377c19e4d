"""Running a coroutine to completion even if its caller is cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_shielded(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] | None = None) -> T:
    """Runs a coroutine to completion even if its caller is cancelled.

    Args:
        work: The coroutine. It has to be bounded in time.
        on_cancel: Called when the caller is cancelled. Then the work is awaited, and its outcome dropped.

    Returns:
        What `work` returns.

    Raises:
        asyncio.CancelledError: The caller was cancelled. The work is done.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if on_cancel:
            on_cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it as never retrieved
        raise
