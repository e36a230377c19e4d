"""Checks requests for stock and converts them to what the store takes."""

from datetime import datetime, timedelta
from uuid import UUID

from shop.product.v1 import stock_pb2

from product.convert import seconds_of
from product.reservation import Hold, RequestedItem, ReservationState
from runtime import pages
from runtime.constraints import Constraints
from runtime.money import total_micros
from runtime.pages import Cursor
from runtime.prices import Price
from runtime.validate import Violations

CONSTRAINTS = Constraints(stock_pb2.DESCRIPTOR)

DEFAULT_EXPIRED = 100
"""Ids of expired holds on one page by default."""
MAX_EXPIRED = 1_000
"""Ids of expired holds on one page."""
MAX_RESERVATIONS = 100
"""Reservations on one page, and the default. A page of very large reservations has fewer."""

Batch = (
    stock_pb2.BatchReserveStockRequest
    | stock_pb2.BatchConfirmReservationsRequest
    | stock_pb2.BatchReleaseReservationsRequest
)
"""A request of which each element succeeds or fails alone."""


def reservation_id(request: stock_pb2.ConfirmReservationRequest | stock_pb2.ReleaseReservationRequest) -> UUID:
    """Returns the id of the reservation that a request is for. Raises INVALID_ARGUMENT if the request is malformed."""
    CONSTRAINTS.enforce(request)
    return UUID(request.reservation_id)


def check_batch(request: Batch) -> None:
    """Raises INVALID_ARGUMENT if a batch is empty or too large. Does not check its elements."""
    CONSTRAINTS.enforce(request)


def hold(request: stock_pb2.ReserveStockRequest) -> Hold:
    """Returns the reservation to make. Raises INVALID_ARGUMENT if the request is malformed."""
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        items = list(request.items)
        violations.distinct(
            "items[{}].product_id", [item.product_id for item in items], "duplicate product; combine into one item"
        )
        expected = None
        if request.HasField("expected_total"):
            micros = total_micros(violations, "expected_total", request.expected_total)
            expected = Price(currency=request.expected_total.currency_code, micros=micros)
    requested = [RequestedItem(UUID(item.product_id), item.quantity) for item in items]
    return Hold(UUID(request.reservation_id), requested, timedelta(seconds=seconds_of(request.ttl)), expected)


def expired(request: stock_pb2.ListExpiredReservationsRequest) -> tuple[Cursor, int]:
    """Returns where a page of expired holds starts, and its size.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    CONSTRAINTS.enforce(request)
    size = pages.page_size(request.page_size, DEFAULT_EXPIRED, MAX_EXPIRED)
    return Cursor.parse(request.page_token, ("expired",), (datetime, UUID)), size


def pair(request: stock_pb2.PairDatabasesRequest) -> tuple[UUID, UUID | None]:
    """Returns the id of the order database that calls, and of the product database that it has recorded, if any.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    CONSTRAINTS.enforce(request)
    recorded = UUID(request.product_database_id) if request.product_database_id else None
    return UUID(request.order_database_id), recorded


def reservation_ids(request: stock_pb2.BatchGetReservationsRequest) -> list[UUID]:
    """Returns the ids of the reservations to get. Raises INVALID_ARGUMENT if the request is malformed."""
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        violations.distinct("reservation_ids[{}]", request.reservation_ids, "duplicate id")
    return [UUID(each) for each in request.reservation_ids]


def product_ids(request: stock_pb2.BatchGetOffersRequest) -> list[UUID]:
    """Returns the ids of the products whose offers to get. Raises INVALID_ARGUMENT if the request is malformed."""
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        violations.distinct("product_ids[{}]", request.product_ids, "duplicate id")
    return [UUID(each) for each in request.product_ids]


def reservations(request: stock_pb2.ListReservationsRequest) -> tuple[list[ReservationState], Cursor, int]:
    """Returns the states to list, where a page of reservations starts, and its size.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    CONSTRAINTS.enforce(request)
    asked = {stock_pb2.Reservation.State.Name(state) for state in request.states}
    states = [state for state in ReservationState if not asked or state.value in asked]
    size = pages.page_size(request.page_size, MAX_RESERVATIONS, MAX_RESERVATIONS)
    return states, Cursor.parse(request.page_token, ("reservations", *states), (UUID,)), size
