"""How late the event loop runs what is due: the longest of all its steps holds up every call."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from runtime.telemetry.metrics import BOUNDS, Metrics

INTERVAL = 0.1
"""Seconds between two measurements."""

WINDOW = 30.0
"""Seconds for which the longest lag is remembered: the chart lets Prometheus ask as often."""


class EventLoopLag:
    """Measures how much later than it should a task wakes up."""

    def __init__(self, metrics: Metrics) -> None:
        """Registers the metrics."""
        self._longest: deque[tuple[float, float]] = deque()
        """When there was a lag of how many seconds. Each is longer than those after it."""
        self._due = float("inf")
        """When the task is to wake up next."""
        name, text = "shop.event_loop.lag", "How late the event loop runs what is due, measured ten times a second."
        self._distribution = metrics.histogram(name, text, BOUNDS).of()
        metrics.gauge(
            "shop.event_loop.max_lag",
            self.max_lag,
            "The longest lag of the event loop in the last 30 seconds.",
            unit="s",
        )

    def max_lag(self) -> float:
        """Returns the longest lag of the last WINDOW seconds, also one that still lasts."""
        now = time.monotonic()
        return max(0.0, now - self._due, *(lag for _, lag in self._longest.copy()))

    @asynccontextmanager
    async def measured(self) -> AsyncGenerator[None, None]:
        """Measures until the end of the block."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            self._due = time.monotonic() + INTERVAL
            await asyncio.sleep(INTERVAL)
            now = time.monotonic()
            self._add(now, max(now - self._due, 0.0))

    def _add(self, now: float, lag: float) -> None:
        self._distribution.record(lag)
        longest = self._longest
        while longest and longest[-1][1] <= lag:
            longest.pop()
        longest.append((now, lag))
        while longest[0][0] <= now - WINDOW:
            longest.popleft()
