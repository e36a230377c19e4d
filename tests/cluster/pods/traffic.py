"""Traffic for a shop while something happens to it, from a pod in the cluster: readers, writers and watchers.

EDGE is the address of the edge, as `helm test` has it; the chart's own edge.py and watch.py are beside this file.
`python traffic.py READERS WRITERS WATCHERS PAUSE` prints `ready` once each has had its first answer, and goes on until
there is a file /tmp/stop. Then it prints one JSON object with what happened: see `Tally`. PAUSE is in seconds, between
two calls of a reader or writer.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from edge import Failed, call, connection, create_product, eventually
from watch import PATH, Watch, advance

STOP = Path("/tmp/stop")
STEP = 8.0
"""Seconds that a watched order spends in a status: its stream outlasts the drain of a pod."""


class Tally:
    """What happened, in all threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._began = time.monotonic()
        self.calls = 0
        self.failures: list[str] = []
        self.watched = 0
        self.wrong: list[str] = []
        """Watchers that lost a status, saw one twice, or came to no end."""
        self.connections = 0
        """Of all watchers; more than `watched` where streams were cut."""

    def call(self, attempt: Callable[[], Any]) -> Any:
        """What the attempt answers, or None if it failed; either is counted."""
        try:
            answer = attempt()
        except (Failed, OSError, HTTPException, ValueError) as error:
            with self._lock:
                self.calls += 1
                self.failures.append(f"{time.monotonic() - self._began:.1f} s: {type(error).__name__} {error}"[:300])
            time.sleep(0.2)
            return None
        with self._lock:
            self.calls += 1
        return answer

    def watch(self, watch: Watch, seen: list[tuple[int, str]], end: str) -> None:
        with self._lock:
            self.watched += 1
            self.connections += watch.connections
            if end or seen != list(enumerate(PATH, start=1)):
                self.wrong.append(f"{watch.order_id}: {seen} {end}")


class Traffic:
    """All threads, and what they share."""

    def __init__(self, pause: float) -> None:
        self.tally = Tally()
        self._pause = pause
        self._product = ""

    def run(self, readers: int, writers: int, watchers: int) -> None:
        eventually(self._prepare)
        work = [self._read] * readers + [self._write] * writers + [self._follow] * watchers
        first = [Event() for _ in work]
        threads = [Thread(target=job, args=(begun,), daemon=True) for job, begun in zip(work, first, strict=True)]
        for thread in threads:
            thread.start()
        for begun in first:
            begun.wait(60)
        print("ready", flush=True)
        for thread in threads:
            thread.join()
        print(json.dumps({name: value for name, value in vars(self.tally).items() if not name.startswith("_")}))

    def _prepare(self) -> None:
        self._product = self._product or create_product(stock=1_000_000)["id"]
        self._order()

    def _read(self, begun: Event) -> None:
        """As browsers and HTTP libraries do: on one connection, and anew where that was closed before the answer."""
        http: list[HTTPConnection] = []
        while not STOP.exists():
            if self.tally.call(lambda: self._get(http)):
                begun.set()
            time.sleep(self._pause)

    def _get(self, kept: list[HTTPConnection]) -> Any:
        reused = bool(kept)
        http = kept.pop() if kept else connection()
        try:
            http.request("GET", f"/api/v1/products/{self._product}")
            answer = http.getresponse()
        except (ConnectionError, HTTPException):
            if reused:
                return self._get(kept)
            raise
        text = answer.read()
        if answer.status != 200:
            raise Failed(f"GET: {answer.status} {text!r}")
        if not answer.will_close:
            kept.append(http)
        return json.loads(text)

    def _write(self, begun: Event) -> None:
        while not STOP.exists():
            order = self.tally.call(self._order)
            if order and self.tally.call(lambda: call("GET", f"/api/v1/orders/{order['id']}")):  # noqa: B023 - called at once
                begun.set()
            time.sleep(self._pause)

    def _order(self) -> Any:
        body = {"items": [{"productId": self._product, "quantity": 1}], "customer": {"email": "traffic@example.com"}}
        return call("POST", "/api/v1/orders", body, **{"Idempotency-Key": str(uuid.uuid4())})

    def _follow(self, begun: Event) -> None:
        """An order after the other, each to its end."""
        while not STOP.exists():
            order = self.tally.call(self._order)
            if not order:
                continue
            watch, seen, end = Watch(order["id"], attempts=60), [], ""
            try:
                for version, status in watch:
                    seen.append((version, status))
                    begun.set()
                    if status != PATH[-1]:
                        self._move_on(order["id"], status)
            except (Failed, OSError, HTTPException) as error:
                end = str(error)
            self.tally.watch(watch, seen, end)

    def _move_on(self, order_id: str, status: str) -> None:
        later = time.monotonic() + STEP
        while time.monotonic() < later and not STOP.exists():
            time.sleep(0.1)
        give_up = time.monotonic() + 60
        while not self.tally.call(lambda: self._moved(order_id, status)) and time.monotonic() < give_up:
            pass

    @staticmethod
    def _moved(order_id: str, status: str) -> bool:
        advance(order_id, status)
        return True


if __name__ == "__main__":
    Traffic(float(sys.argv[4])).run(*(int(each) for each in sys.argv[1:4]))
