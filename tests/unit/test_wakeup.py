"""An event that one task waits for."""

import asyncio
import gc
import weakref

import pytest

from runtime.wakeup import Wakeup


async def test_closed_wakeup_fails_each_wait() -> None:
    wakeup = Wakeup()
    wakeup.close(ValueError("closed"))
    for _ in range(2):
        async with asyncio.timeout(5):
            with pytest.raises(ValueError, match="closed"):
                await wakeup.wait()


async def test_shared_error_keeps_no_waiter_alive() -> None:
    """The streams of a lost order service are closed with one error."""

    class Stream:
        """What a waiter holds in its frame."""

    error = ValueError("closed")
    streams: list[weakref.ref[Stream]] = []

    async def follow(wakeup: Wakeup) -> None:
        stream = Stream()
        streams.append(weakref.ref(stream))
        with pytest.raises(ValueError, match="closed"):
            await wakeup.wait()

    for _ in range(10):
        wakeup = Wakeup()
        wakeup.close(error)
        await follow(wakeup)
    gc.collect()
    assert sum(stream() is not None for stream in streams) <= 1
