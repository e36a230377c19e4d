"""What the order service needs of the product service: stock that is reserved, confirmed and released."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from shop.product.v1 import stock_pb2

from order.domain import Item, Line, Offer
from runtime.errors import ApiError, unavailable
from runtime.prices import Price

SERVICE = stock_pb2.DESCRIPTOR.services_by_name["StockService"].full_name
"""The gRPC service. Each of its calls may be repeated: it then changes nothing, and returns the same."""

HOLD_TTL = 45
"""Time-to-live of a hold, in seconds. Unconfirmed holds older than this are settled by the reaper, within a minute of
their reservation."""

RESERVE_TIMEOUT = 5.0
"""Time limit for reserving the stock of a client's order, in seconds; shorter if the client's own deadline is."""

CALL_TIMEOUT = 3.0
"""Time limit for the other calls, which background jobs make, in seconds."""

OFFERS_TIMEOUT = 1.0
"""Time limit for the offers of the products in a cart, in seconds."""

MAX_OFFER_LOOKUPS = 20
"""Carts whose offers are looked up in one call. The product service accepts 1,000 ids."""

PAGE_SIZE = 50
"""Reservations in one response, at most. With the most items and the longest names, so many fit into a message."""

MAX_BATCH = 64
"""Reservations that the product service accepts in one batch."""

MAX_WAITING = 500
"""Orders of this process that may wait for their stock at the same time. More are refused at once."""

MAX_REPEATED = 16
"""Reservations with a repeated id that are requested at the same time. More would fill product's queue."""


class ReservationState(StrEnum):
    """The state of a reservation. The names are those of the API."""

    HELD = "HELD"
    CONFIRMED = "CONFIRMED"
    RELEASED = "RELEASED"


@dataclass(frozen=True)
class Reservation:
    """The stock of one order."""

    state: ReservationState
    currency: str
    """Of the items' prices, in ISO 4217; empty without items."""
    items: list[Item]


@dataclass(frozen=True, kw_only=True)
class StoredReservation(Reservation):
    """A reservation as the product service lists it."""

    id: UUID
    """The id of its order."""
    expire_time: datetime
    """The end of a hold's time-to-live, by the product service's clock."""


@dataclass(frozen=True)
class DatabasePair:
    """The product database's id, and the id of the order database that it has on record, if any."""

    product_id: UUID
    order_id: UUID | None


class ProductUnavailable(ApiError):
    """The product service did not respond. It may or may not have done what was requested."""

    def __init__(self) -> None:
        error = unavailable("the product service is unavailable")
        super().__init__(error.code, error.text, *error.details)


class ProductOutdated(ProductUnavailable):
    """The product service is an older release, which cannot say which databases belong together."""


class Stock(Protocol):
    """The stock of the product service. Every method may raise ProductUnavailable."""

    async def reserve(
        self, order_id: UUID, lines: Sequence[Line], timeout: float | None, expected: Price | None = None
    ) -> Reservation:
        """Reserves stock. The same id and lines return the same reservation again, whatever it costs.

        Args:
            order_id: The id of the order, which the reservation gets too.
            lines: The products and quantities.
            timeout: Seconds that the client's own deadline leaves; None without one.
            expected: The total that the customer saw. If the lines cost more, or have another currency, nothing is
                reserved. A product service of an older release does not compare it.

        Raises:
            ApiError: The stock cannot be reserved, for a reason that the client may see.
            DomainError: The id was used with other lines.
        """
        ...

    async def get_offers(self, product_ids: Sequence[UUID]) -> Mapping[UUID, Offer]:
        """Returns what products cost now, and how many there are. Those that never existed are left out.

        It takes OFFERS_TIMEOUT at most, since a cart can be shown without them.

        Args:
            product_ids: At most as many as a cart has.
        """
        ...

    async def confirm(self, order_id: UUID) -> Reservation | None:
        """Confirms a hold. Returns the reservation as it is afterwards; None if it does not exist."""
        ...

    async def release(self, order_id: UUID) -> None:
        """Returns the stock of a reservation to its products, once. The id can never reserve stock again."""
        ...

    async def batch_confirm(self, order_ids: Sequence[UUID]) -> Sequence[Reservation | Exception | None]:
        """Confirms at most MAX_BATCH holds. Returns for each what `confirm` returns, or the exception it raises."""
        ...

    async def batch_release(self, order_ids: Sequence[UUID]) -> Sequence[Exception | None]:
        """Releases at most MAX_BATCH reservations. Returns for each the exception that `release` raises, or None."""
        ...

    async def list_expired(self, limit: int, page_token: str) -> tuple[list[UUID], str]:
        """Returns a page of the expired holds' ids, oldest first, and the token of the next page.

        The token is empty on the last page; an empty `page_token` asks for the first.
        """
        ...

    async def find(self, order_ids: Sequence[UUID]) -> dict[UUID, StoredReservation]:
        """Returns those of at most PAGE_SIZE reservations that exist, by id."""
        ...

    def list_taken(self) -> AsyncIterator[list[StoredReservation]]:
        """Yields all reservations that have stock (held or confirmed), in pages of at most PAGE_SIZE, by id."""
        ...

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool = False, replace: bool = False
    ) -> DatabasePair:
        """Exchanges the ids of the two databases.

        Args:
            order_database: The id of the calling order database. The product database records it if it has none yet.
            product_database: The id that the order database has on record; None without one.
            read_only: Record nothing.
            replace: Record the id even if another one is on record.

        Raises:
            ProductOutdated: The product service is too old for this call.
        """
        ...
