"""The stream's wire format to the byte, and what a browser sends about it."""

import json
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.rpc import status_pb2
from shop.order.v1.order_pb2 import Order, OrderStatusEvent

HEARTBEAT = b": heartbeat\n\n"
COMPLETED = b"event: completed\ndata: stream closed\n\n"

HEADERS = {
    "Content-Type": "text/event-stream",
    # Middlewares that compress hold a stream back until its end, unless they must not transform it.
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}

LAST_EVENT_ID_PARAMETERS = ("lastEventId", "last-event-id", "Last-Event-ID", "last_event_id")
"""How polyfills of EventSource spell the parameter in the query."""

RETRY_RANGE = (2_000, 6_000)
"""Milliseconds, from and to, after which browsers reconnect: not all at once."""

TICKET_EXPIRED_ID = "ticket-expired"
"""The event id after a ticket that has expired. A browser sends it when it reconnects, and is told to stop."""

_FINAL = {Order.Status.RECEIVED, Order.Status.CANCELLED}
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """An event of an order's log, encoded once however many browsers watch it."""

    version: int
    final: bool
    block: bytes
    traceparent: str = ""
    """The call that wrote it, as a W3C `traceparent`, if its trace is sampled. Browsers do not get it."""


def status_event(event: OrderStatusEvent, *, last: bool = False, traceparent: str = "") -> StatusEvent:
    """Returns an event in its wire format.

    Args:
        event: The event.
        last: The order service says that the event is final, also where this process does not know its status.
        traceparent: The call that wrote it, if that is known.
    """
    moment = datetime.fromtimestamp(event.update_time.seconds, UTC)
    data = {
        "order_id": event.order_id,
        "status": _name(event.status),
        "message": event.message,
        "updated_at": f"{moment:%Y-%m-%dT%H:%M:%S}.{event.update_time.nanos // 1_000_000:03}Z",
    }
    block = f"id: {event.version}\ndata: {_compact(data)}\n\n"
    return StatusEvent(event.version, last or event.status in _FINAL, block.encode(), traceparent)


def pruned_notice(version: int) -> bytes:
    """Returns the comment before the first event of a log whose earlier events were pruned."""
    return f": history before version {version} is gone\n\n".encode()


def _name(status: Order.Status.ValueType) -> str:
    """Returns the name of a status; its number where a newer order service sends one that is unknown here."""
    return Order.Status.Name(status) if status in Order.Status.values() else str(int(status))


def retry_milliseconds() -> int:
    """Returns how long a browser waits before it reconnects."""
    return random.randint(*RETRY_RANGE)  # noqa: S311 - spreads load, keeps no secret


def retry() -> bytes:
    """Returns the hint after which a browser reconnects."""
    return f"retry: {retry_milliseconds()}\n\n".encode()


def error(status: status_pb2.Status) -> bytes:
    """Returns the event that says why a stream failed."""
    return f"event: error\ndata: {status_json(status)}\n\n".encode()


def ticket_expired(status: status_pb2.Status) -> bytes:
    """Returns the only event of a stream whose ticket has expired. It has an id, by which its reconnect is known."""
    return f"id: {TICKET_EXPIRED_ID}\n".encode() + error(status)


def status_json(status: status_pb2.Status) -> str:
    """Returns google.rpc.Status in the JSON of all errors at the edge."""
    details = [MessageToDict(detail) for detail in status.details]
    return _compact({"code": status.code, "message": status.message, "details": details})


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def last_event_id(value: str) -> int:
    """Returns the version that a browser has seen; 0, a full replay, if the value is absent or invalid."""
    return int(value) if _WHOLE_NUMBER.fullmatch(value) else 0
