"""Waiting for what becomes true a little later."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], seconds: float = 40, *, interval: float = 0.02) -> T: ...
@overload
async def eventually(condition: Callable[[], T], seconds: float = 40, *, interval: float = 0.02) -> T: ...
async def eventually(condition: Callable[[], T | Awaitable[T]], seconds: float = 40, *, interval: float = 0.02) -> T:
    """Evaluates a condition again and again, until it is true and asserts nothing false.

    Args:
        condition: Returns a value, or an awaitable of one. It may contain assertions.
        seconds: How long it may take.
        interval: Seconds between two evaluations.

    Returns:
        The value.

    Raises:
        AssertionError: It took longer. The error shows the last value, or is the last assertion that failed.
    """
    deadline = time.monotonic() + seconds
    while True:
        failure: AssertionError | None = None
        value: T | None = None
        try:
            result = condition()
            value = await result if inspect.isawaitable(result) else result
        except AssertionError as error:
            failure = error
        if value:
            return value
        if time.monotonic() >= deadline:
            raise failure or AssertionError(f"still {value!r} after {seconds:g} s: {_source(condition)}")
        await asyncio.sleep(interval)


def _source(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
