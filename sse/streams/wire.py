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
    # Middlewares that compress keep a stream back until its end, unless they must not transform it.
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}

LAST_EVENT_ID_PARAMETERS = ("lastEventId", "last-event-id", "Last-Event-ID", "last_event_id")
"""How polyfills of EventSource spell it in the query."""

RETRY = (2_000, 6_000)
"""Milliseconds, from and to, after which browsers are told to come back: not all at once."""

_FINAL = {Order.Status.RECEIVED, Order.Status.CANCELLED}
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """An event of an order's log, written once however many browsers watch it."""

    version: int
    final: bool
    block: bytes


def status_event(event: OrderStatusEvent, *, last: bool = False) -> StatusEvent:
    """`last` says that the order service knows the event to be final, also where this process does not."""
    moment = datetime.fromtimestamp(event.update_time.seconds, UTC)
    data = {
        "order_id": event.order_id,
        "status": _name(event.status),
        "message": event.message,
        "updated_at": f"{moment:%Y-%m-%dT%H:%M:%S}.{event.update_time.nanos // 1_000_000:03}Z",
    }
    block = f"id: {event.version}\ndata: {_compact(data)}\n\n"
    return StatusEvent(event.version, last or event.status in _FINAL, block.encode())


def gone(version: int) -> bytes:
    """Comes before the first event where the log no longer has what was before it."""
    return f": history before version {version} is gone\n\n".encode()


def _name(status: Order.Status.ValueType) -> str:
    """A status that a newer order service may know and this process does not is its number."""
    return Order.Status.Name(status) if status in Order.Status.values() else str(int(status))


def retry_milliseconds() -> int:
    return random.randint(*RETRY)  # noqa: S311 - spreads load, keeps no secret


def retry() -> bytes:
    return f"retry: {retry_milliseconds()}\n\n".encode()


def error(status: status_pb2.Status) -> bytes:
    return f"event: error\ndata: {status_json(status)}\n\n".encode()


def status_json(status: status_pb2.Status) -> str:
    """google.rpc.Status in the JSON that the whole edge answers."""
    details = [MessageToDict(detail) for detail in status.details]
    return _compact({"code": status.code, "message": status.message, "details": details})


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def last_event_id(value: str) -> int:
    """The version that a browser has seen; 0, a full replay, where the header is absent or invalid."""
    return int(value) if _WHOLE_NUMBER.fullmatch(value) else 0
