"""StockClient: the product service's stock over gRPC, with its errors as clients of orders see them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import TypeVar
from uuid import UUID

import grpc
from google.protobuf import message
from google.rpc import status_pb2
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from order import stock
from order.domain import Item, Line, Offer, key_reused
from order.offers import Offers
from order.product_calls import ProductCalls
from order.stock import (
    DatabasePair,
    ProductOutdated,
    ProductUnavailable,
    Reservation,
    ReservationState,
    StoredReservation,
)
from runtime.batch import Batcher
from runtime.errors import (
    DATABASE_FULL,
    QUERY_TIMEOUT,
    ApiError,
    database_full,
    known_details,
    parse_rpc_error,
    parse_status,
    query_timeout,
    resource_exhausted,
)
from runtime.money import micros_of, set_money
from runtime.prices import Price

RESERVATION_NOT_FOUND = "RESERVATION_NOT_FOUND"
"""ErrorInfo reason of the product service for an id that no reservation has."""

T = TypeVar("T")
R = TypeVar("R")

_STATES = {stock_pb2.Reservation.State.Value(state): state for state in ReservationState}


@dataclass(frozen=True)
class Hold:
    """A hold to be made."""

    request: stock_pb2.ReserveStockRequest
    deadline: float
    """By the event loop's clock."""


class StockClient:
    """Stock over gRPC. Implements `order.stock.Stock`, which documents the methods."""

    def __init__(self, channel: grpc.aio.Channel, calls: ProductCalls) -> None:
        """`channel` leads to the product service; `calls` makes the calls."""
        self._call = calls
        self._stub: stock_pb2_grpc.StockServiceAsyncStub = stock_pb2_grpc.StockServiceStub(channel)
        self._offers = Offers(self._stub, calls)
        self._reserve_batched = Batcher[Hold, Reservation](
            "stock.reserve",
            self.reserve_all,
            key=lambda hold: hold.request.reservation_id,
            max_size=stock.MAX_BATCH,
            max_alone=stock.MAX_REPEATED,
            max_waiting=stock.MAX_WAITING,
        )

    async def reserve(
        self, order_id: UUID, lines: Sequence[Line], timeout: float | None, expected: Price | None = None
    ) -> Reservation:
        """Reserves stock for an order. See `Stock.reserve`."""
        request = stock_pb2.ReserveStockRequest(
            reservation_id=str(order_id),
            items=[stock_pb2.StockItem(product_id=str(line.product_id), quantity=line.quantity) for line in lines],
        )
        request.ttl.FromSeconds(stock.HOLD_TTL)
        if expected:
            set_money(request.expected_total, expected.currency, expected.micros)
        seconds = stock.RESERVE_TIMEOUT if timeout is None else min(stock.RESERVE_TIMEOUT, timeout)
        try:
            # The call may take longer: other holds of the batch may have later deadlines.
            async with asyncio.timeout(seconds):
                return await self._reserve_batched(Hold(request, _now() + seconds))
        except TimeoutError:
            raise ProductUnavailable from None

    async def reserve_all(self, holds: Sequence[Hold]) -> list[Reservation | Exception]:
        """Makes holds in one call. Returns the reservation or the error of each; their ids differ."""
        now = _now()
        pending = [hold for hold in holds if hold.deadline > now]
        results: dict[str, Reservation | Exception] = {}
        if pending:
            request = stock_pb2.BatchReserveStockRequest(requests=[hold.request for hold in pending])
            timeout = max(hold.deadline for hold in pending) - now
            try:
                response = await self._call(self._stub.BatchReserveStock, request, timeout)
                outcomes: Sequence[Reservation | Exception] = [_reserved(each) for each in response.results]
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    outcomes = await _one_by_one(self._reserve_single, pending)
                else:
                    outcomes = [_batch_error(error) for _ in pending]
            results = {hold.request.reservation_id: each for hold, each in zip(pending, outcomes, strict=True)}
        return [results.get(hold.request.reservation_id) or ProductUnavailable() for hold in holds]

    async def _reserve_single(self, hold: Hold) -> Reservation:
        """Reserves stock by the call of releases that have no batches."""
        try:
            return _reservation(await self._call(self._stub.ReserveStock, hold.request, hold.deadline - _now()))
        except grpc.aio.AioRpcError as error:
            raise _reserve_error(error) from None

    async def get_offers(self, product_ids: Sequence[UUID]) -> Mapping[UUID, Offer]:
        """Returns what products cost now. See `Stock.get_offers`."""
        return await self._offers(product_ids)

    async def confirm(self, order_id: UUID) -> Reservation | None:
        """Confirms a reservation. See `Stock.confirm`."""
        request = stock_pb2.ConfirmReservationRequest(reservation_id=str(order_id))
        try:
            return _reservation(await self._call(self._stub.ConfirmReservation, request))
        except grpc.aio.AioRpcError as error:
            if parse_rpc_error(error)[1] == RESERVATION_NOT_FOUND:
                return None
            raise ProductUnavailable from None

    async def release(self, order_id: UUID) -> None:
        """Releases a reservation. See `Stock.release`."""
        request = stock_pb2.ReleaseReservationRequest(reservation_id=str(order_id))
        await self._call_or_unavailable(self._stub.ReleaseReservation, request)

    async def batch_confirm(self, order_ids: Sequence[UUID]) -> Sequence[Reservation | Exception | None]:
        """Confirms reservations in one call. See `Stock.batch_confirm`."""
        request = stock_pb2.BatchConfirmReservationsRequest(reservation_ids=[str(each) for each in order_ids])
        try:
            response = await self._call(self._stub.BatchConfirmReservations, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return await _one_by_one(self.confirm, order_ids)
            raise ProductUnavailable from None
        return [_confirmed(each) for each in response.results]

    async def batch_release(self, order_ids: Sequence[UUID]) -> Sequence[Exception | None]:
        """Releases reservations in one call. See `Stock.batch_release`."""
        request = stock_pb2.BatchReleaseReservationsRequest(reservation_ids=[str(each) for each in order_ids])
        try:
            response = await self._call(self._stub.BatchReleaseReservations, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return await _one_by_one(self.release, order_ids)
            raise ProductUnavailable from None
        return [ProductUnavailable() if each.HasField("error") else None for each in response.results]

    async def list_expired(self, limit: int, page_token: str) -> tuple[list[UUID], str]:
        """Returns a page of expired holds. See `Stock.list_expired`."""
        request = stock_pb2.ListExpiredReservationsRequest(page_size=limit, page_token=page_token)
        response = await self._call_or_unavailable(self._stub.ListExpiredReservations, request)
        return [UUID(each) for each in response.reservation_ids], response.next_page_token

    async def find(self, order_ids: Sequence[UUID]) -> dict[UUID, StoredReservation]:
        """Returns the reservations of orders. See `Stock.find`."""
        request = stock_pb2.BatchGetReservationsRequest(reservation_ids=[str(each) for each in order_ids])
        response = await self._call_or_unavailable(self._stub.BatchGetReservations, request)
        return {each.id: each for each in map(_stored, response.reservations)}

    async def list_taken(self) -> AsyncIterator[list[StoredReservation]]:
        """Yields pages of reservations that have stock. See `Stock.list_taken`."""
        states = [stock_pb2.Reservation.HELD, stock_pb2.Reservation.CONFIRMED]
        request = stock_pb2.ListReservationsRequest(states=states, page_size=stock.PAGE_SIZE)
        while True:
            response = await self._call_or_unavailable(self._stub.ListReservations, request)
            yield [_stored(each) for each in response.reservations]
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool = False, replace: bool = False
    ) -> DatabasePair:
        """Pairs the two databases. See `Stock.pair`."""
        request = stock_pb2.PairDatabasesRequest(
            order_database_id=str(order_database),
            product_database_id=str(product_database or ""),
            read_only=read_only,
            replace=replace,
        )
        try:
            response = await self._call(self._stub.PairDatabases, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ProductOutdated from None
            raise ProductUnavailable from None
        return DatabasePair(
            UUID(response.product_database_id), UUID(response.order_database_id) if response.order_database_id else None
        )

    async def _call_or_unavailable(self, method: Callable[..., Awaitable[R]], request: message.Message) -> R:
        """Returns the response of a call whose every error means that the product service is unavailable."""
        try:
            return await self._call(method, request)
        except grpc.aio.AioRpcError:
            raise ProductUnavailable from None


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _one_by_one(call: Callable[[T], Awaitable[R]], requests: Sequence[T]) -> list[R | Exception]:
    """Returns what single calls return or raise. In a rolling upgrade, product may be a release without batches."""

    async def outcome(request: T) -> R | Exception:
        try:
            return await call(request)
        except Exception as error:
            return error

    return await asyncio.gather(*map(outcome, requests))


def _reserved(result: stock_pb2.ReservationResult) -> Reservation | Exception:
    if not result.HasField("error"):
        return _reservation(result.reservation)
    code, reason = parse_status(result.error)
    return _client_error(code, reason, result.error.message, result.error)


def _confirmed(result: stock_pb2.ReservationResult) -> Reservation | Exception | None:
    if not result.HasField("error"):
        return _reservation(result.reservation)
    return None if parse_status(result.error)[1] == RESERVATION_NOT_FOUND else ProductUnavailable()


def _reservation(reservation: stock_pb2.Reservation) -> Reservation:
    return Reservation(_STATES[reservation.state], _currency(reservation), _items(reservation))


def _stored(reservation: stock_pb2.Reservation) -> StoredReservation:
    return StoredReservation(
        _STATES[reservation.state],
        _currency(reservation),
        _items(reservation),
        id=UUID(reservation.id),
        expire_time=reservation.expire_time.ToDatetime(tzinfo=UTC),
    )


def _currency(reservation: stock_pb2.Reservation) -> str:
    return reservation.items[0].unit_price.currency_code if reservation.items else ""


def _items(reservation: stock_pb2.Reservation) -> list[Item]:
    return [
        Item(
            product_id=item.product_id,
            quantity=item.quantity,
            name=item.name,
            price_micros=micros_of(item.unit_price),
        )
        for item in reservation.items
    ]


_PASSED_ON = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
"""The codes of errors about the client's items. Their messages and details are passed on to the client."""


def _reserve_error(error: grpc.aio.AioRpcError) -> Exception:
    code, reason, status = parse_rpc_error(error)
    return _client_error(code, reason, error.details() or "", status)


def _batch_error(error: grpc.aio.AioRpcError) -> Exception:
    """Returns the error for each order of a batch that failed as a whole, which no order's items are the reason for."""
    return ProductUnavailable() if error.code() in _PASSED_ON else _reserve_error(error)


def _client_error(code: grpc.StatusCode, reason: str, text: str, status: status_pb2.Status) -> Exception:
    """Returns what a client sees of an error of the product service."""
    if code in _PASSED_ON:
        return ApiError(code, text, *known_details(status))
    if reason == "RESERVATION_MISMATCH":
        return key_reused()
    if reason == DATABASE_FULL:
        return database_full("the product database is full; nothing was ordered")
    if reason == QUERY_TIMEOUT:
        return query_timeout("the product database timed out; nothing was ordered")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return resource_exhausted("the product service is overloaded: its request queue is full")
    return ProductUnavailable()
