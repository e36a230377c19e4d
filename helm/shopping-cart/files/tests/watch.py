"""An order's status as server-sent events, followed as an EventSource does: after a break it resumes where it was."""

import json
import time
from collections.abc import Generator, Iterator
from http.client import HTTPException

from edge import Failed, ask, connection

PATH = ["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"]
_VERBS = {"PLACED": "process", "PROCESSED": "deliver", "DELIVERED": "receive"}

STREAM_TIMEOUT = 40.0
"""Seconds of silence after which a stream is given up. Heartbeats come every 15."""


class Watch:
    """One watcher. Iterating gives version and status of each event until `completed`."""

    def __init__(self, order_id: str, attempts: int = 10) -> None:
        """`attempts` that bring nothing new, one after another, are a failure."""
        self.order_id = order_id
        self.connections = 0
        """How often it connected."""
        self.last = 0
        """The newest version that it has seen."""
        self._attempts = attempts

    def __iter__(self) -> Iterator[tuple[int, str]]:
        vain = 0
        while vain < self._attempts:
            before = self.last
            try:
                done = yield from self._connected()
            except (OSError, HTTPException):
                done = False  # the connection broke
            if done:
                return
            vain = 0 if self.last > before else vain + 1
            time.sleep(0.5)
        raise Failed(f"the stream of {self.order_id} breaks again and again")

    def _connected(self) -> Generator[tuple[int, str], None, bool]:
        """The events of one connection; answers whether the stream is at its end."""
        http = connection(timeout=STREAM_TIMEOUT)
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(self.last)} if self.last else {})
            http.request("GET", f"/api/orders/stream?order_id={self.order_id}", headers=headers)
            answer = http.getresponse()
            self.connections += 1
            if answer.status == 204:
                return True
            if answer.status != 200:
                raise Failed(f"the stream is answered by {answer.status} {answer.read()!r}")
            event: dict[str, str] = {}
            for line in answer:
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name:
                    event[name] = value
                    continue
                if event.get("event") == "completed":
                    return True
                if "data" in event and "event" not in event:
                    self.last = int(event["id"])
                    yield self.last, json.loads(event["data"])["status"]
                event = {}
            return False
        finally:
            http.close()


def move_on(order_id: str, status: str) -> None:
    """One step on from a status; the demo's simulator may have been quicker."""
    verb = _VERBS[status]
    code, answer = ask("POST", f"/api/v1/orders/{order_id}:{verb}", {})
    if code != 200 and not (code == 400 and answer.get("code") == 9):
        raise Failed(f"{verb}: {code} {answer}")
