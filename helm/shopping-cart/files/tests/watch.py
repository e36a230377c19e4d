"""Follows an order by server-sent events as an EventSource does: after a break it resumes where it was."""

import json
import time
from collections.abc import Generator, Iterator
from http.client import HTTPException
from urllib.parse import urlencode

from edge import Failed, connection, send

PATH = ["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"]
_VERBS = {"PLACED": "process", "PROCESSED": "deliver", "DELIVERED": "receive"}

STREAM_TIMEOUT = 40.0
"""Read timeout of a stream, in seconds. A heartbeat comes every 15."""


class Watch:
    """Follows one order. Iterating yields version and status of each event until `completed`."""

    def __init__(self, order_id: str, attempts: int = 10, ticket: str = "") -> None:
        """Creates a watch that fails after `attempts` connections in a row without a new event."""
        self.order_id = order_id
        self._query = urlencode({"order_id": order_id} | ({"ticket": ticket} if ticket else {}))
        self.connections = 0
        """Number of connections so far."""
        self.last = 0
        """The newest version so far."""
        self._attempts = attempts

    def __iter__(self) -> Iterator[tuple[int, str]]:
        unproductive = 0
        while unproductive < self._attempts:
            before = self.last
            try:
                done = yield from self._connected()
            except (OSError, HTTPException):
                done = False  # the connection broke
            if done:
                return
            unproductive = 0 if self.last > before else unproductive + 1
            time.sleep(0.5)
        raise Failed(f"the stream of {self.order_id} keeps breaking")

    def _connected(self) -> Generator[tuple[int, str], None, bool]:
        """Yields the events of one connection. Returns whether the stream is complete."""
        http = connection(timeout=STREAM_TIMEOUT)
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(self.last)} if self.last else {})
            http.request("GET", f"/api/orders/stream?{self._query}", headers=headers)
            response = http.getresponse()
            self.connections += 1
            if response.status == 204:
                return True
            if response.status != 200:
                raise Failed(f"the stream returned {response.status} {response.read()!r}")
            event: dict[str, str] = {}
            for line in response:
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


def advance(order_id: str, status: str) -> None:
    """Moves an order from a status to the next one, unless the demo's simulator was faster."""
    verb = _VERBS[status]
    code, response = send("POST", f"/api/v1/orders/{order_id}:{verb}", {})
    if code != 200 and not (code == 400 and response.get("code") == 9):
        raise Failed(f"{verb}: {code} {response}")
