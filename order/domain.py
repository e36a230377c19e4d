"""What an order is and what may become of it. Pure: no database, no network."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TypedDict
from uuid import UUID, uuid4, uuid5


class Status(StrEnum):
    """How far an order is. The names are those of the API."""

    PLACED = "PLACED"
    PROCESSED = "PROCESSED"
    DELIVERED = "DELIVERED"
    RECEIVED = "RECEIVED"
    CANCELLED = "CANCELLED"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PLACED: frozenset({Status.PROCESSED, Status.CANCELLED}),
    Status.PROCESSED: frozenset({Status.DELIVERED, Status.CANCELLED}),
    Status.DELIVERED: frozenset({Status.RECEIVED}),
    Status.RECEIVED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""What each status may become. All that is said of transitions elsewhere follows from this table."""

EXPIRED = "EXPIRED"
"""The status of a tombstone: a row that keeps a given-up order id from ever becoming an order. Never shown."""


def sources(target: Status) -> list[str]:
    """The statuses that may become `target`."""
    return [status.value for status, targets in TRANSITIONS.items() if target in targets]


def is_final(status: str) -> bool:
    """Nothing comes after this status."""
    return not TRANSITIONS[Status(status)]


class Item(TypedDict):
    """An item as the order keeps it: the name and price are those of the moment when it was ordered."""

    product_id: str
    quantity: int
    name: str
    price_micros: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a client asks for: a product and how many pieces of it."""

    product_id: UUID
    quantity: int


def same_items(items: Sequence[Item], others: Sequence[Item]) -> bool:
    """Whether both are the same pieces of the same products, in whatever sequence, and at whatever price."""
    return {(each["product_id"], each["quantity"]) for each in items} == {
        (each["product_id"], each["quantity"]) for each in others
    }


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A new order as the client sent it, checked."""

    lines: tuple[Line, ...]
    customer_name: str
    customer_email: str
    customer_phone: str
    shipping_address: str
    payment_method: str
    notes: str

    def fingerprint(self) -> bytes:
        """The same for the same payload. The sequence of the items does not matter."""
        lines = sorted((str(line.product_id), line.quantity) for line in self.lines)
        texts = (
            self.customer_name,
            self.customer_email,
            self.customer_phone,
            self.shipping_address,
            self.payment_method,
            self.notes,
        )
        return hashlib.sha256(json.dumps([lines, texts]).encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Order:
    """A row of `orders`; a tombstone too, which has neither number nor items."""

    id: UUID
    number: str | None
    status: str
    items: list[Item]
    currency: str
    total_micros: Decimal
    """Whole micros. It can exceed what 64 bits hold."""
    customer_name: str
    customer_email: str
    customer_phone: str
    shipping_address: str
    payment_method: str
    notes: str
    fingerprint: bytes
    version: int
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        return str(self.version)

    @property
    def expired(self) -> bool:
        return self.status == EXPIRED


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """An entry of an order's event log."""

    version: int
    status: str
    time: datetime

    @property
    def final(self) -> bool:
        return is_final(self.status)


_NAMESPACE = UUID("6d0d3a4c-9a63-5c1e-8f0e-2f6f0c1b7a55")


def order_id(caller: str, key: UUID | None) -> UUID:
    """The id of the order that a caller places under a key, and of its reservation; without a key a random one.

    It derives from both, so that a retry converges in both databases and keys of different callers do not meet.
    """
    return uuid5(_NAMESPACE, f"{caller}\0{key}") if key else uuid4()


def total_micros(items: Sequence[Item]) -> int:
    return sum(item["price_micros"] * item["quantity"] for item in items)
