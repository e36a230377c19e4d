"""Reservations, and the errors that explain why stock could not be reserved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from product.domain import MAX_STOCK, describe_shortage, insufficient_stock, product_deleted
from runtime.prices import Price, price_changed
from runtime.refusals import DomainError, ErrorKind, join_first

MAX_NAMED_ITEMS = 5
"""Items that the message of a rejection names."""


class ReservationState(StrEnum):
    """What became of the stock of a reservation. The names are those of the API."""

    HELD = "HELD"
    CONFIRMED = "CONFIRMED"
    RELEASED = "RELEASED"


@dataclass(frozen=True)
class RequestedItem:
    """A product, and how many pieces of it to reserve."""

    product_id: UUID
    quantity: int


@dataclass(frozen=True)
class Hold:
    """A request for a reservation."""

    id: UUID
    items: Sequence[RequestedItem]
    ttl: timedelta
    expected: Price | None = None
    """The total that the customer saw. The reservation is not made if the items cost more, or have another currency."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item of a reservation, with the product's name and price when it was reserved."""

    product_id: UUID
    quantity: int
    name: str
    currency: str
    price_micros: int


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """Stock that is set aside for an order. Its id is the order's."""

    id: UUID
    state: ReservationState
    items: tuple[Item, ...]
    """Empty where the reservation was released before it was made."""
    expire_time: datetime
    """When the order service should settle a hold. Nothing happens by itself at that time."""


@dataclass(frozen=True, kw_only=True)
class LockedProduct:
    """A requested product as it was when its row was locked. Fields of a product that does not exist are None."""

    product_id: UUID
    quantity: int
    """The pieces that were requested."""
    deleted: bool
    name: str | None
    currency: str | None
    price_micros: int | None
    stock: int | None
    expire_time: datetime | None
    """When the reservation expires. None if it was not made."""

    @property
    def available(self) -> int:
        """The pieces that one order can have."""
        return _available(self.stock or 0)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a product costs now, and how many pieces there are."""

    product_id: UUID
    name: str
    currency: str
    price_micros: int
    stock: int
    deleted: bool

    @property
    def available(self) -> int:
        """The pieces that one order can have."""
        return 0 if self.deleted else _available(self.stock)


def _available(stock: int) -> int:
    """Returns the pieces that one order can have.

    Cancelled orders may bring the stock above the limit. An order cannot have more than the limit: with the highest
    price and the most items, its total would not fit into 64 bits.
    """
    return min(stock, MAX_STOCK)


def check_same_items(reservation: Reservation, items: Sequence[RequestedItem]) -> Reservation:
    """Returns a reservation that existed before, if it is what the request asks for.

    A reservation without items was released before it was made. It stays so, whatever is requested.

    Raises:
        DomainError: ALREADY_EXISTS if it has other items.
    """
    existing = {(item.product_id, item.quantity) for item in reservation.items}
    if existing and existing != {(item.product_id, item.quantity) for item in items}:
        raise DomainError(
            ErrorKind.ALREADY_EXISTS,
            f"reservation {reservation.id} already exists with different items",
            reason="RESERVATION_MISMATCH",
            metadata={"reservation_id": str(reservation.id)},
        )
    return reservation


def rejection(products: Sequence[LockedProduct], expected: Price | None) -> DomainError | None:
    """Returns why nothing was reserved.

    The message names the first products that are the reason, the metadata one of them.

    Args:
        products: The requested products as they were when their rows were locked.
        expected: The total that the customer saw, if the request has it.

    Returns:
        None if nothing is wrong with these products: others of the same batch were counted before them.
    """
    for index, each in enumerate(products):
        if each.name is None:
            return _unknown(index, each.product_id)
    for each in products:
        if each.deleted:
            return product_deleted(each.product_id, each.name or "")
    short = [each for each in products if each.available < each.quantity]
    if short:
        shortages = [describe_shortage(each.name or "", each.quantity, each.available) for each in short]
        text = join_first(shortages, MAX_NAMED_ITEMS)
        return insufficient_stock(text, short[0].product_id, short[0].quantity, short[0].available)
    currencies = sorted({each.currency or "" for each in products})
    if len(currencies) > 1:
        return DomainError(
            ErrorKind.FAILED_PRECONDITION,
            f"the items have prices in {' and '.join(currencies)}; an order has one currency",
            reason="CURRENCY_MISMATCH",
            metadata={"currencies": ",".join(currencies)},
        )
    if expected is None:
        return None
    total = Price(currencies[0], sum((each.price_micros or 0) * each.quantity for each in products))
    return price_changed(expected, total) if total.exceeds(expected) else None


def _unknown(index: int, product_id: UUID) -> DomainError:
    field = f"items[{index}].product_id"
    return DomainError(
        ErrorKind.NOT_FOUND,
        f"{field}: product {product_id} not found",
        reason="PRODUCT_NOT_FOUND",
        metadata={"product_id": str(product_id)},
        violations=[(field, "product not found")],
    )


def reservation_not_found(reservation_id: UUID) -> DomainError:
    """Returns the error for a reservation that does not exist."""
    return DomainError(
        ErrorKind.NOT_FOUND,
        f"reservation {reservation_id} not found",
        reason="RESERVATION_NOT_FOUND",
        metadata={"reservation_id": str(reservation_id)},
    )
