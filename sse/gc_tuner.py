"""Keeps the garbage collector's pauses short: with ten thousand streams a full collection takes half a second.

Almost all of a stream is freed when it ends, without the collector; what is left (a connection's own cycle) is about a
kibibyte. So what lives is set aside (frozen), where no collection looks at it, and everything is looked at only after
as many streams have ended as there are, or many.
"""

import asyncio
import gc
import logging
import time
from typing import NoReturn

from sse.streams.stream import Streams

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks."""

MANY = 10_000
"""Ended streams after which everything is looked at, at least."""


class GcTuner:
    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._joined = 0
        self._ended = 0

    async def run(self) -> NoReturn:
        """Looks, for ever."""
        while True:
            self.look()
            await asyncio.sleep(INTERVAL)

    def look(self) -> None:
        streams = self._streams
        if streams.ended - self._ended >= max(MANY, len(streams)):
            began = time.monotonic()
            gc.unfreeze()
            gc.collect()
            self._ended = streams.ended
            log.info("collected garbage in %.0f ms", 1000 * (time.monotonic() - began))
        elif streams.joined == self._joined:
            return
        else:
            gc.collect(1)
        self._joined = streams.joined
        gc.freeze()
