"""Reservations: what they are, and why one cannot be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import UUID

from product.domain import LARGEST_STOCK, product_deleted, shortage
from runtime.errors import ApiError, already_exists, bad_request, enumerated, failed_precondition, not_found

State = Literal["HELD", "CONFIRMED", "RELEASED"]
STATES: tuple[State, ...] = get_args(State)

MOST_NAMED = 5
"""So many items that cannot be had are named."""


@dataclass(frozen=True)
class Wanted:
    """A product and how many pieces of it to take."""

    product_id: UUID
    quantity: int


@dataclass(frozen=True)
class Hold:
    """A reservation that is asked for."""

    id: UUID
    wanted: Sequence[Wanted]
    ttl: timedelta


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
    id: UUID
    state: State
    items: tuple[Item, ...]
    expire_time: datetime


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A wanted product as it was found, its row locked. What an unknown one lacks is None."""

    product_id: UUID
    quantity: int
    deleted: bool
    name: str | None
    currency: str | None
    price_micros: int | None
    stock: int | None
    expire_time: datetime | None
    """Of the reservation, if it was made."""

    @property
    def available(self) -> int:
        """What one order can have of it. What orders give back may be on top of the largest stock; with the largest
        price and the most items, a total of more would not fit into 64 bits."""
        return min(self.stock or 0, LARGEST_STOCK)


def check_same(reservation: Reservation, wanted: Sequence[Wanted]) -> Reservation:
    """A reservation that was there before is the answer if it has the same items. One that was released before it was
    made has none, and never will."""
    before = {(item.product_id, item.quantity) for item in reservation.items}
    if before and before != {(item.product_id, item.quantity) for item in wanted}:
        raise already_exists(
            "RESERVATION_MISMATCH",
            f"reservation {reservation.id} has other items",
            reservation_id=str(reservation.id),
        )
    return reservation


def refusal(candidates: Sequence[Candidate]) -> ApiError | None:
    """Why nothing was reserved. The first candidates that are to blame are named in the message, one in the details.
    None if nothing stands against it: others of its batch were counted before it."""
    for index, one in enumerate(candidates):
        if one.name is None:
            return _unknown(index, one.product_id)
    for one in candidates:
        if one.deleted:
            return product_deleted(one.product_id, one.name or "")
    short = [one for one in candidates if one.available < one.quantity]
    if short:
        return failed_precondition(
            "INSUFFICIENT_STOCK",
            enumerated([shortage(one.name or "", one.quantity, one.available) for one in short], MOST_NAMED),
            product_id=str(short[0].product_id),
            requested=str(short[0].quantity),
            available=str(short[0].available),
        )
    currencies = sorted({one.currency or "" for one in candidates})
    if len(currencies) == 1:
        return None
    return failed_precondition(
        "CURRENCY_MISMATCH",
        f"the items have prices in {' and '.join(currencies)}; an order has one currency",
        currencies=",".join(currencies),
    )


def _unknown(index: int, product_id: UUID) -> ApiError:
    field = f"items[{index}].product_id"
    return not_found(
        "PRODUCT_NOT_FOUND",
        f"{field}: there is no product {product_id}",
        bad_request([(field, "is no product")]),
        product_id=str(product_id),
    )


def reservation_not_found(reservation_id: UUID) -> ApiError:
    return not_found(
        "RESERVATION_NOT_FOUND", f"there is no reservation {reservation_id}", reservation_id=str(reservation_id)
    )
