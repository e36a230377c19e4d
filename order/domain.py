"""The rules of orders: what an order is, and which status may follow which. Knows neither gRPC nor PostgreSQL."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID, uuid4, uuid5

from runtime.prices import Price
from runtime.refusals import DomainError, ErrorKind


class Status(StrEnum):
    """The status of an order. The names are those of the API."""

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
"""The statuses that may follow each status. Everything else that depends on transitions is derived from this table."""


def sources(target: Status) -> list[Status]:
    """Returns the statuses that `target` may follow."""
    return [status for status, targets in TRANSITIONS.items() if target in targets]


def is_final(status: str) -> bool:
    """Returns whether no status may follow this one."""
    return not TRANSITIONS[Status(status)]


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item of an order or a reservation, with the name and the price of the moment when it was ordered."""

    product_id: str
    quantity: int
    name: str
    price_micros: int
    """The price of one piece, in millionths of the currency's unit."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the catalogue says about a product now."""

    name: str
    price: Price
    """Of one piece."""
    available: int
    """The pieces that an order can have."""
    deleted: bool
    """Whether the product is no longer sold."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A product that a client orders, and the number of pieces."""

    product_id: UUID
    quantity: int


def same_items(items: Sequence[Item], others: Sequence[Item]) -> bool:
    """Returns whether both have the same products and quantities, in any sequence and at any price."""
    return {(each.product_id, each.quantity) for each in items} == {(each.product_id, each.quantity) for each in others}


def total_micros(items: Sequence[Item]) -> int:
    """Returns the price of all items, in millionths of the currency's unit. It can exceed 64 bits."""
    return sum(item.price_micros * item.quantity for item in items)


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a client writes on an order beside its items."""

    customer_name: str
    customer_email: str
    customer_phone: str
    shipping_address: str
    payment_method: str
    notes: str


@dataclass(frozen=True, kw_only=True)
class Draft(Details):
    """A new order as the client sent it, checked."""

    lines: tuple[Line, ...]

    def fingerprint(self) -> bytes:
        """Returns the SHA-256 of the request, by which a retry is told from another request.

        It is the same in every release, and for any sequence of the items. So the fields are named here one by one.
        """
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


def draft_of(lines: tuple[Line, ...], details: Details) -> Draft:
    """Returns what is ordered, and what the customer wrote."""
    return Draft(lines=lines, **vars(details))


@dataclass(frozen=True, kw_only=True)
class Order(Details):
    """An order as it is stored."""

    id: UUID
    number: str
    status: Status
    items: list[Item]
    currency: str
    total_micros: Decimal
    """Whole micros, as `total_micros()` returns them."""
    fingerprint: bytes
    """That of the draft that it was made from."""
    version: int
    create_time: datetime
    update_time: datetime
    owner: str = ""
    """The customer whose order it is. Empty if it is nobody's: a guest's, or placed without tokens."""

    @property
    def etag(self) -> str:
        """The version as clients see it."""
        return str(self.version)


@dataclass(frozen=True)
class Tombstone:
    """Keeps the id of an attempt that expired from ever becoming an order. Clients never see it."""

    id: UUID


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """An entry of an order's event log."""

    version: int
    status: str
    time: datetime
    traceparent: str | None = None
    """The call that wrote it, as a W3C `traceparent`, if its trace is sampled."""

    @property
    def final(self) -> bool:
        """Whether no event can follow."""
        return is_final(self.status)


@dataclass(frozen=True, kw_only=True)
class OrderQuery:
    """The orders that a list returns. A field that is empty or None does not narrow it."""

    status: Status | None = None
    customer_email: str = ""
    number: str = ""
    owner: str | None = None
    """The customer whose orders are listed. No order belongs to an empty one."""


_NAMESPACE = UUID("6d0d3a4c-9a63-5c1e-8f0e-2f6f0c1b7a55")


def derive_id(caller: str, key: UUID | None) -> UUID:
    """Returns the id of the order that a caller places with an idempotency key; without a key, a random id.

    It is the id of the order's reservation too. It derives from both arguments, so a retry finds its order in both
    databases, and the keys of different callers are different orders.
    """
    return uuid5(_NAMESPACE, f"{caller}\0{key}") if key else uuid4()


def replayed(order: Order | Tombstone, draft: Draft) -> Order:
    """Returns the order that an earlier request with the same idempotency key has placed.

    Args:
        order: What is stored under the id that derives from the key.
        draft: The order of the present request.

    Raises:
        DomainError: ABORTED if the earlier attempt expired, ALREADY_EXISTS if its request was another one.
    """
    if isinstance(order, Tombstone):
        raise expired()
    if order.fingerprint != draft.fingerprint():
        raise key_reused()
    return order


def check_move(order: Order, target: Status) -> None:
    """Checks an order that a move to `target` left unchanged. Accepts one that already has this status.

    Raises:
        DomainError: FAILED_PRECONDITION if `target` may not follow the order's status, ABORTED if the order has another
            version than the client expects.
    """
    if order.status is target:
        return
    if order.status not in sources(target):
        raise DomainError(
            ErrorKind.FAILED_PRECONDITION,
            f"an order with status {order.status} cannot become {target}",
            reason="ILLEGAL_TRANSITION",
            metadata={"from": order.status.value, "to": target.value},
        )
    raise DomainError(ErrorKind.ABORTED, f"the order was changed: its etag is now {order.etag}", reason="ETAG_MISMATCH")


def not_found(order_id: UUID) -> DomainError:
    """Returns the error for an id that no order has."""
    return DomainError(
        ErrorKind.NOT_FOUND,
        f"order {order_id} not found",
        reason="ORDER_NOT_FOUND",
        metadata={"order_id": str(order_id)},
    )


def key_reused() -> DomainError:
    """Returns the error for an idempotency key that was used with another request."""
    return DomainError(
        ErrorKind.ALREADY_EXISTS,
        "the idempotency key was already used with a different request",
        reason="IDEMPOTENCY_KEY_REUSED",
    )


def expired() -> DomainError:
    """Returns the error for an idempotency key whose first attempt expired."""
    return DomainError(
        ErrorKind.ABORTED,
        "the previous attempt expired without placing an order; retry with a new idempotency key",
        reason="ORDER_EXPIRED",
    )
