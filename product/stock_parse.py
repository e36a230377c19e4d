"""Checks requests for stock and converts them to what the store takes."""

from datetime import datetime, timedelta
from uuid import UUID

from shop.product.v1 import stock_pb2

from product.convert import seconds_of
from product.reservation import STATES, Hold, State, Wanted
from runtime import pages
from runtime.constraints import Constraints
from runtime.errors import invalid_argument
from runtime.validate import Violations, parse_uuid

CONSTRAINTS = Constraints(stock_pb2.DESCRIPTOR)

DEFAULT_EXPIRED = 100
"""Ids of expired holds on one page by default."""
MAX_EXPIRED = 1_000
"""Ids of expired holds on one page."""
MAX_RESERVATIONS = 100
"""Reservations on one page, and the default. A page of very large reservations has fewer."""

_EXPIRED = ("expired",)
"""The query that page tokens of expired holds belong to."""

Batch = (
    stock_pb2.BatchReserveStockRequest
    | stock_pb2.BatchConfirmReservationsRequest
    | stock_pb2.BatchReleaseReservationsRequest
)
"""A request of which each element succeeds or fails alone."""

_STATES: dict[int, State] = {stock_pb2.Reservation.State.Value(state): state for state in STATES}


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
    wanted = [Wanted(UUID(item.product_id), item.quantity) for item in items]
    return Hold(UUID(request.reservation_id), wanted, timedelta(seconds=seconds_of(request.ttl)))


def expired(request: stock_pb2.ListExpiredReservationsRequest) -> tuple[tuple[datetime, UUID] | None, int]:
    """Returns the last hold of the previous page (its expire time and id, or None), and the size of the page.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    CONSTRAINTS.enforce(request)
    after = None
    if request.page_token:
        time, last = pages.decode(_EXPIRED, request.page_token, (str, str))
        try:
            after = datetime.fromisoformat(str(time)), UUID(str(last))
        except ValueError:
            raise invalid_argument([("page_token", pages.INVALID_TOKEN)]) from None
    return after, pages.page_size(request.page_size, DEFAULT_EXPIRED, MAX_EXPIRED)


def expired_token(time: datetime, reservation_id: UUID) -> str:
    """Returns the token of the page after an expired hold."""
    return pages.encode(_EXPIRED, [time.isoformat(), str(reservation_id)])


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


def reservations(
    request: stock_pb2.ListReservationsRequest,
) -> tuple[list[State], tuple[str, ...], UUID | None, int]:
    """Returns what to list: the states, the query that page tokens belong to, the last id of the previous page (or
    None), and the size of the page.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    CONSTRAINTS.enforce(request)
    asked = {_STATES[state] for state in request.states}
    states = [state for state in STATES if not asked or state in asked]
    query = ("reservations", *states)
    after = None
    if request.page_token:
        (key,) = pages.decode(query, request.page_token, (str,))
        after = parse_uuid("page_token", str(key))
    return states, query, after, pages.page_size(request.page_size, MAX_RESERVATIONS, MAX_RESERVATIONS)
