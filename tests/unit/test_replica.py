"""What a replica must have applied."""

import asyncio
import weakref
from typing import Any

from runtime.replica import PrimaryLog


class Position(str):
    """A text that a weak reference can refer to."""

    __slots__ = ("__weakref__",)


class Primary:
    """Counts the positions that it has told, and that somebody keeps."""

    def __init__(self) -> None:
        self.told = 0
        self.kept: weakref.WeakSet[Position] = weakref.WeakSet()

    async def fetch_one(self, name: str, query: str, params: dict[str, Any], row: Any) -> Any:
        self.told += 1
        position = Position(f"0/{self.told:X}")
        self.kept.add(position)
        return row(position)


async def test_positions_are_dropped_without_any_read() -> None:
    """The primary is asked each second, also if all reads use it."""
    primary: Any = Primary()
    primary_log = PrimaryLog(primary, max_lag=0.01)
    for _ in range(100):
        await primary_log.poll()
        await asyncio.sleep(0.001)
    assert len(primary.kept) < 50
    await asyncio.sleep(0.02)
    assert primary_log.required == "0/64"
