"""The watchers: a process that follows orders as EventSources do, and tells its parent what they saw.

It reads commands from standard input and writes responses to standard output, a JSON array each:

    ["watch", [port, …], [order_id, …], per_second]  → ["watching", started]  when each has its first event
    ["measure"]                                      → ["measuring"]          events from here on count as live
    ["report", events, completed, timeout]          → ["report", {…}]        after so many, or after `timeout`

An EventSource comes back by itself after any 200 that ends, and after a broken connection, with its Last-Event-ID and
after the time that `retry:` said; any other status (but 204, the end) makes it give up for good, and so it does here.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from bench.http2 import Pool

FIRST_RETRY = 3.0
"""Seconds after which browsers come back where no `retry:` came; Chromium's."""


class Watchers:
    """All watchers of the process and what they saw."""

    def __init__(self, ports: list[int]) -> None:
        self.pools = [Pool("127.0.0.1", port) for port in ports]
        self.all: list[Watcher] = []
        self.started = 0
        self.seen = 0
        self.completed = 0
        self.measuring = 0.0
        self.delays: list[float] = []
        self.counts: Counter[str] = Counter()
        self.changed = asyncio.Event()

    def add(self, order_id: str) -> "Watcher":
        watcher = Watcher(self, order_id, len(self.all))
        self.all.append(watcher)
        return watcher

    async def begun(self, timeout: float) -> None:
        """Waits until each has its first event, for at most so many seconds."""
        await self._until(lambda: self.started == len(self.all), timeout)

    async def have(self, events: int, completed: int, timeout: float) -> None:
        """Waits until so many events were seen and so many streams completed, for at most so many seconds."""
        await self._until(lambda: self.seen >= events and self.completed >= completed, timeout)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()

    def report(self) -> dict[str, Any]:
        return {
            "versions": {watcher.order_id: watcher.versions for watcher in self.all},
            "completed": self.completed,
            "delays": self.delays,
            "counts": dict(self.counts),
        }


class Watcher:
    """One EventSource."""

    __slots__ = ("_buffer", "_done", "_number", "_owner", "_retry", "_status", "order_id", "versions")

    def __init__(self, owner: Watchers, order_id: str, number: int) -> None:
        self._owner = owner
        self._number = number
        self.order_id = order_id
        self.versions: list[int] = []
        self._buffer = b""
        self._status = 0
        self._retry = FIRST_RETRY
        self._done = False

    async def connect(self) -> None:
        headers = [("accept", "text/event-stream"), ("cache-control", "no-store")]
        if self.versions:
            headers.append(("last-event-id", str(self.versions[-1])))
        self._buffer, self._status = b"", 0
        pools = self._owner.pools
        # A browser is led to any edge; each time to another one, if there are several.
        self._number += 1
        try:
            await pools[self._number % len(pools)].get(f"/api/orders/stream?order_id={self.order_id}", headers, self)
        except OSError:
            self.ended()

    def responded(self, status: int) -> None:
        self._status = status
        if status != 200:
            self._owner.counts[f"status {status}"] += 1
            self._done = True
        if status == 204:  # the end came, and `completed` was lost on its way
            self._completed()

    def received(self, data: bytes) -> None:
        now = time.time()
        if self._status != 200:
            return
        *blocks, self._buffer = (self._buffer + data).split(b"\n\n")
        for block in blocks:
            self._take(block, now)

    def _take(self, block: bytes, now: float) -> None:
        owner = self._owner
        if block.startswith(b"id: "):
            first, _, rest = block.partition(b"\n")
            if not self.versions:
                owner.started += 1
            self.versions.append(int(first[4:]))
            owner.seen += 1
            owner.changed.set()
            moment = datetime.fromisoformat(json.loads(rest[6:])["updated_at"]).timestamp()
            if owner.measuring and moment >= owner.measuring:
                owner.delays.append(now - moment)
        elif block.startswith(b"retry: "):
            self._retry = int(block[7:]) / 1000
        elif block == b": heartbeat":
            owner.counts["heartbeats"] += 1
        elif block.startswith(b"event: completed"):
            self._done = True
            self._completed()
        elif block.startswith(b"event: error"):
            owner.counts["errors"] += 1
        else:
            owner.counts["other blocks"] += 1

    def _completed(self) -> None:
        self._owner.completed += 1
        self._owner.changed.set()

    def ended(self) -> None:
        if not self._done:
            self._owner.counts["reconnects"] += 1
            asyncio.get_running_loop().call_later(self._retry, self._again)

    def _again(self) -> None:
        task = asyncio.get_running_loop().create_task(self.connect())
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)


_TASKS: set["asyncio.Task[None]"] = set()


async def _connect_all(watchers: Watchers, per_second: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, watcher in enumerate(watchers.all):
        early = began + number / per_second - loop.time()
        if early > 0:
            await asyncio.sleep(early)
        await watcher.connect()


def _say(*answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Until its input ends."""
    watchers = Watchers([])
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        match json.loads(line):
            case ["watch", ports, order_ids, per_second]:
                watchers = Watchers(ports)
                order_ids = list(order_ids)
                random.shuffle(order_ids)
                for order_id in order_ids:
                    watchers.add(order_id)
                await _connect_all(watchers, per_second)
                await watchers.begun(60)
                _say("watching", watchers.started)
            case ["measure"]:
                watchers.measuring = time.time()
                _say("measuring")
            case ["report", events, completed, timeout]:
                await watchers.have(events, completed, timeout)
                await asyncio.sleep(1)  # what would come twice comes now
                _say("report", watchers.report())
            case unknown:
                raise ValueError(f"no such command: {unknown}")
    for pool in watchers.pools:
        pool.close()


if __name__ == "__main__":
    asyncio.run(main())
