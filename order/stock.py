"""The product service as order sees it: stock that is set aside, made lasting, and given back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol
from uuid import UUID

from shop.product.v1 import stock_pb2

from order.domain import Item, Line
from runtime.errors import ApiError, already_exists, unavailable

SERVICE = stock_pb2.DESCRIPTOR.services_by_name["StockService"].full_name
"""Every call of it may be made twice."""

RESERVE_TIMEOUT = 5.0
"""Seconds that a client's order waits for its stock; less where the client waits less."""

HOLD_SECONDS = 45
"""Seconds until a hold that nobody confirmed is looked after: with what the reaper takes, it is free after a minute."""

TIMEOUT = 3.0
"""Seconds that a call in the background may take."""

PAGE = 50
"""Reservations in one answer, at most: with the most items and the longest names, so many fit into one."""

MOST_TOGETHER = 64
"""Reservations that the product service takes in one batch."""

MOST_WAITING = 500
"""Clients' orders that may wait for their stock at a time in this process; those beyond are refused at once."""


class State(Enum):
    """What a reservation is."""

    HELD = stock_pb2.Reservation.HELD
    CONFIRMED = stock_pb2.Reservation.CONFIRMED
    RELEASED = stock_pb2.Reservation.RELEASED


@dataclass(frozen=True)
class Reservation:
    state: State
    currency: str
    items: list[Item]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A reservation as the product service has it."""

    id: UUID
    state: State
    items: list[Item]
    expire_time: datetime
    """When a hold should be looked after, by the product service's clock."""


@dataclass(frozen=True)
class DatabasePair:
    """The product database's id, and that of the order database which it has on record, if any."""

    product_id: UUID
    order_id: UUID | None


class ProductUnavailable(ApiError):
    """The product service does not answer; whether it did what was asked is not known."""

    def __init__(self) -> None:
        error = unavailable("the product service does not answer")
        super().__init__(error.code, error.text, *error.details)


class ProductOlder(ProductUnavailable):
    """The product service is of an older version, which knows nothing of databases that belong together."""


class Stock(Protocol):
    """What the order service needs of the product service. Every method raises ProductUnavailable."""

    async def reserve(self, order_id: UUID, lines: Sequence[Line], patience: float | None) -> Reservation:
        """Sets stock aside; the same id and lines get the same answer again. `patience` is in seconds.

        Raises the ApiError that the client shall see where this cannot be.
        """
        ...

    async def confirm(self, order_id: UUID) -> Reservation | None:
        """Makes a hold lasting. Answers the reservation as it is then; None if there is none."""
        ...

    async def release(self, order_id: UUID) -> None:
        """Gives the stock back, once, and keeps the id from ever getting any."""
        ...

    async def batch_confirm(self, order_ids: Sequence[UUID]) -> Sequence[Reservation | Exception | None]:
        """Makes at most MOST_TOGETHER holds lasting. Returns what `confirm` does for each, or the exception that it
        raises."""
        ...

    async def batch_release(self, order_ids: Sequence[UUID]) -> Sequence[Exception | None]:
        """Gives the stock of at most MOST_TOGETHER reservations back. Returns the exception that `release` raises for
        each, or None."""
        ...

    async def expired(self, limit: int, page_token: str) -> tuple[list[UUID], str]:
        """A page of the holds whose time is over, oldest first, and the token of the next page; empty on the last."""
        ...

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool = False, replace: bool = False
    ) -> DatabasePair:
        """Tells the product service which order database calls, and which product database that has on record. It
        records the order database if it has none on record, or to `replace` another one; not if `read_only`."""
        ...


def key_reused() -> ApiError:
    return already_exists("IDEMPOTENCY_KEY_REUSED", "the idempotency key was used for another order")
