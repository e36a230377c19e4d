"""Keeps the garbage collector's pauses short: with ten thousand streams a full collection takes half a second.

Almost all of a stream is freed when it ends, without the collector; what is left (a connection's own cycle) is about a
kibibyte. So what lives is frozen: no collection looks at it. Everything is collected only after as many connections
have closed as are open, and at least MIN_CLOSED.
"""

import asyncio
import gc
import logging
import time
from typing import NoReturn

from sse.streams.connections import Connections

log = logging.getLogger(__name__)

GC_INTERVAL = 1.0
"""Seconds between two steps."""

MIN_CLOSED = 10_000
"""Closed connections after which everything is collected, at least."""


class GcTuner:
    """Freezes live objects (`gc.freeze`), and rarely runs a full collection."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._opened = 0
        self._closed = 0

    async def run(self) -> NoReturn:
        """Repeats the step."""
        while True:
            self.step()
            await asyncio.sleep(GC_INTERVAL)

    def step(self) -> None:
        """Freezes what is new; collects everything after many connections have closed."""
        connections = self._connections
        if connections.closed - self._closed >= max(MIN_CLOSED, len(connections)):
            began = time.monotonic()
            gc.unfreeze()
            gc.collect()
            self._closed = connections.closed
            log.info("collected garbage in %.0f ms", 1000 * (time.monotonic() - began))
        elif connections.opened == self._opened:
            return
        else:
            gc.collect(1)
        self._opened = connections.opened
        gc.freeze()
