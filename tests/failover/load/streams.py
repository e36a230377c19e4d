"""Watchers of orders, each of which behaves as a browser's EventSource does."""

import asyncio
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests.failover.load.http import Http, chunks, read_head

FIRST_RETRY = 3.0
"""Seconds after which browsers reconnect if the server has not sent `retry:`. Chromium's."""


@dataclass(eq=False)
class Watch:
    """One order, and what its watcher has seen."""

    order_id: str
    versions: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """When each version came, in seconds since the epoch."""
    done: bool = False
    """Whether the stream has ended for good."""


class Streams:
    """All watchers."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._tasks: dict[Watch, asyncio.Task[None]] = {}
        self.watches: list[Watch] = []
        """The watchers of now, and those that have ended since the last call of `forget`."""
        self.counts: Counter[str] = Counter()
        self.changed = asyncio.Event()

    def add(self, order_id: str) -> Watch:
        """Starts to watch an order."""
        watch = Watch(order_id)
        self.watches.append(watch)
        self._tasks[watch] = asyncio.create_task(self._follow(watch))
        return watch

    @property
    def live(self) -> int:
        return sum(not each.done for each in self.watches)

    def forget(self) -> None:
        """Drops the watchers that have ended, and sets the counts to 0."""
        self.watches = [each for each in self.watches if not each.done]
        self.counts.clear()

    async def until(self, versions: dict[str, int], timeout: float) -> None:
        """Waits until each watcher has seen this version of its order, for at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while any(versions.get(each.order_id, 0) > _last(each) for each in self.watches):
                    self.changed.clear()
                    await self.changed.wait()

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _follow(self, watch: Watch) -> None:
        retry = FIRST_RETRY
        while True:
            with suppress(OSError, EOFError, ValueError):
                retry = await self._connected(watch, retry)
            if watch.done:
                break
            self.counts["reconnects"] += 1
            await asyncio.sleep(retry)
        del self._tasks[watch]
        self.changed.set()

    async def _connected(self, watch: Watch, retry: float) -> float:
        """Follows an order on one connection. Returns the seconds after which to reconnect."""
        reader, writer = await self._http.connect()
        try:
            headers = {"accept": "text/event-stream", "cache-control": "no-store"}
            if watch.versions:
                headers["last-event-id"] = str(watch.versions[-1])
            writer.write(self._http.head("GET", f"/api/orders/stream?order_id={watch.order_id}", headers))
            status, _ = await read_head(reader)
            if status != 200:
                # 204 is the end, and an EventSource gives up for good after any other status.
                watch.done = True
                if status != 204:
                    self.counts["given up"] += 1
                return retry
            buffer = b""
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                async for chunk in chunks(reader):
                    *blocks, buffer = (buffer + chunk).split(b"\n\n")
                    for block in blocks:
                        retry = self._take(watch, block, retry)
            return retry
        finally:
            writer.close()

    def _take(self, watch: Watch, block: bytes, retry: float) -> float:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if line.count(b": ") and line[:1] != b":")
        event = fields.get(b"event", b"message")
        if event == b"message" and b"data" in fields:
            json.loads(fields[b"data"])
            watch.versions.append(int(fields[b"id"]))
            watch.times.append(time.time())
            self.changed.set()
        elif event == b"completed":
            watch.done = True
        elif event == b"error":
            self.counts["errors"] += 1
        return int(fields[b"retry"]) / 1000 if b"retry" in fields else retry


def _last(watch: Watch) -> int:
    return max(watch.versions, default=0)
