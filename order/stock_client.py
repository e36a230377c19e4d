"""Stock over gRPC: what the order service asks of the product service, and what it makes of the answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import TypeVar
from uuid import UUID

import grpc
from google.protobuf import message
from google.rpc import error_details_pb2, status_pb2
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from order import stock
from order.domain import Item, Line
from order.stock import (
    MOST_TOGETHER,
    PAGE,
    TIMEOUT,
    DatabasePair,
    ProductOlder,
    ProductUnavailable,
    Reservation,
    State,
    Stored,
    key_reused,
)
from runtime.batch import Batcher
from runtime.errors import (
    DATABASE_FULL,
    QUERY_TIMEOUT,
    ApiError,
    database_full,
    of_status,
    parse_rpc_error,
    query_timeout,
    resource_exhausted,
)
from runtime.money import MICROS, NANOS_PER_MICRO

NOT_FOUND = "RESERVATION_NOT_FOUND"
"""ErrorInfo reason of the product service for an id that it does not know."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Hold:
    request: stock_pb2.ReserveStockRequest
    deadline: float
    """By the loop's clock."""


class StockClient:
    """Stock over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: stock_pb2_grpc.StockServiceAsyncStub = stock_pb2_grpc.StockServiceStub(channel)
        self._reserve_batched = Batcher[_Hold, Reservation](
            "stock.reserve",
            self._reserve_all,
            key=lambda hold: hold.request.reservation_id,
            largest=MOST_TOGETHER,
            most_waiting=stock.MOST_WAITING,
        )

    async def reserve(self, order_id: UUID, lines: Sequence[Line], patience: float | None) -> Reservation:
        request = stock_pb2.ReserveStockRequest(
            reservation_id=str(order_id),
            items=[stock_pb2.StockItem(product_id=str(line.product_id), quantity=line.quantity) for line in lines],
        )
        request.ttl.FromSeconds(stock.HOLD_SECONDS)
        timeout = stock.RESERVE_TIMEOUT if patience is None else min(stock.RESERVE_TIMEOUT, patience)
        try:
            # Others of its batch may have more time.
            async with asyncio.timeout(timeout):
                return await self._reserve_batched(_Hold(request, _now() + timeout))
        except TimeoutError:
            raise ProductUnavailable from None

    async def _reserve_all(self, holds: Sequence[_Hold]) -> list[Reservation | Exception]:
        now = _now()
        left = [hold for hold in holds if hold.deadline > now]
        told: dict[str, Reservation | Exception] = {}
        if left:
            request = stock_pb2.BatchReserveStockRequest(requests=[hold.request for hold in left])
            timeout = max(hold.deadline for hold in left) - now
            try:
                answer = await self._stub.BatchReserveStock(request, timeout=timeout)
                results: Sequence[Reservation | Exception] = [_reserved(each) for each in answer.results]
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    results = await _side_by_side(self._reserve_alone, left)
                else:
                    results = [_of_batch(error) for _ in left]
            told = {hold.request.reservation_id: each for hold, each in zip(left, results, strict=True)}
        return [told.get(hold.request.reservation_id) or ProductUnavailable() for hold in holds]

    async def _reserve_alone(self, hold: _Hold) -> Reservation:
        """As a product service of before there were batches knows it."""
        try:
            return _reservation(await self._stub.ReserveStock(hold.request, timeout=hold.deadline - _now()))
        except grpc.aio.AioRpcError as error:
            raise _parse_rpc_error(error) from None

    async def confirm(self, order_id: UUID) -> Reservation | None:
        request = stock_pb2.ConfirmReservationRequest(reservation_id=str(order_id))
        try:
            return _reservation(await self._stub.ConfirmReservation(request, timeout=TIMEOUT))
        except grpc.aio.AioRpcError as error:
            if parse_rpc_error(error)[1] == NOT_FOUND:
                return None
            raise ProductUnavailable from None

    async def release(self, order_id: UUID) -> None:
        request = stock_pb2.ReleaseReservationRequest(reservation_id=str(order_id))
        try:
            await self._stub.ReleaseReservation(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError:
            raise ProductUnavailable from None

    async def batch_confirm(self, order_ids: Sequence[UUID]) -> Sequence[Reservation | Exception | None]:
        request = stock_pb2.BatchConfirmReservationsRequest(reservation_ids=[str(each) for each in order_ids])
        try:
            answer = await self._stub.BatchConfirmReservations(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return await _side_by_side(self.confirm, order_ids)
            raise ProductUnavailable from None
        return [_confirmed(each) for each in answer.results]

    async def batch_release(self, order_ids: Sequence[UUID]) -> Sequence[Exception | None]:
        request = stock_pb2.BatchReleaseReservationsRequest(reservation_ids=[str(each) for each in order_ids])
        try:
            answer = await self._stub.BatchReleaseReservations(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return await _side_by_side(self.release, order_ids)
            raise ProductUnavailable from None
        return [ProductUnavailable() if each.HasField("error") else None for each in answer.results]

    async def expired(self, limit: int, page_token: str) -> tuple[list[UUID], str]:
        request = stock_pb2.ListExpiredReservationsRequest(page_size=limit, page_token=page_token)
        try:
            answer = await self._stub.ListExpiredReservations(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError:
            raise ProductUnavailable from None
        return [UUID(each) for each in answer.reservation_ids], answer.next_page_token

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool = False, replace: bool = False
    ) -> DatabasePair:
        request = stock_pb2.PairDatabasesRequest(
            order_database_id=str(order_database),
            product_database_id=str(product_database or ""),
            read_only=read_only,
            replace=replace,
        )
        try:
            answer = await self._stub.PairDatabases(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ProductOlder from None
            raise ProductUnavailable from None
        return DatabasePair(
            UUID(answer.product_database_id), UUID(answer.order_database_id) if answer.order_database_id else None
        )

    async def find(self, order_ids: Sequence[UUID]) -> dict[UUID, Stored]:
        """Those of at most PAGE reservations that exist."""
        request = stock_pb2.BatchGetReservationsRequest(reservation_ids=[str(each) for each in order_ids])
        try:
            answer = await self._stub.BatchGetReservations(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError:
            raise ProductUnavailable from None
        return {each.id: each for each in map(_stored, answer.reservations)}

    async def taken(self) -> AsyncIterator[list[Stored]]:
        """All reservations that have stock, held or confirmed, in pages by id."""
        request = stock_pb2.ListReservationsRequest(states=[State.HELD.value, State.CONFIRMED.value], page_size=PAGE)
        while True:
            try:
                answer = await self._stub.ListReservations(request, timeout=TIMEOUT)
            except grpc.aio.AioRpcError:
                raise ProductUnavailable from None
            yield [_stored(each) for each in answer.reservations]
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _side_by_side(call: Callable[[T], Awaitable[R]], requests: Sequence[T]) -> list[R | Exception]:
    """What came of single calls: in a rolling upgrade the product service may be one that knows no batches yet."""

    async def outcome(request: T) -> R | Exception:
        try:
            return await call(request)
        except Exception as error:
            return error

    return await asyncio.gather(*map(outcome, requests))


def _reserved(result: stock_pb2.ReservationResult) -> Reservation | Exception:
    if not result.HasField("error"):
        return _reservation(result.reservation)
    code, reason = of_status(result.error)
    return _for_clients(code, reason, result.error.message, result.error)


def _confirmed(result: stock_pb2.ReservationResult) -> Reservation | Exception | None:
    if not result.HasField("error"):
        return _reservation(result.reservation)
    return None if of_status(result.error)[1] == NOT_FOUND else ProductUnavailable()


def _stored(message: stock_pb2.Reservation) -> Stored:
    return Stored(
        id=UUID(message.id),
        state=State(message.state),
        items=_reservation(message).items,
        expire_time=message.expire_time.ToDatetime(tzinfo=UTC),
    )


def _reservation(message: stock_pb2.Reservation) -> Reservation:
    items: list[Item] = [
        {
            "product_id": item.product_id,
            "quantity": item.quantity,
            "name": item.name,
            "price_micros": item.unit_price.units * MICROS + item.unit_price.nanos // NANOS_PER_MICRO,
        }
        for item in message.items
    ]
    currency = message.items[0].unit_price.currency_code if message.items else ""
    return Reservation(State(message.state), currency, items)


_PASSED_ON = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
"""What the product service says of the client's items; its words and details are for the client."""


def _parse_rpc_error(error: grpc.aio.AioRpcError) -> ApiError:
    code, reason, status = parse_rpc_error(error)
    return _for_clients(code, reason, error.details() or "", status)


def _of_batch(error: grpc.aio.AioRpcError) -> ApiError:
    """Where a batch fails as a whole, that says nothing of the items of one."""
    return ProductUnavailable() if error.code() in _PASSED_ON else _parse_rpc_error(error)


def _for_clients(code: grpc.StatusCode, reason: str, text: str, status: status_pb2.Status) -> ApiError:
    if code in _PASSED_ON:
        return ApiError(code, text, *_details(status))
    if reason == "RESERVATION_MISMATCH":
        return key_reused()
    if reason == DATABASE_FULL:
        return database_full("no stock can be set aside: the catalogue's database is full; nothing was ordered")
    if reason == QUERY_TIMEOUT:
        return query_timeout("no stock could be set aside: the catalogue's database took too long; nothing was ordered")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _too_many()
    return ProductUnavailable()


def _too_many() -> ApiError:
    return resource_exhausted("too many calls are waiting")


def _details(status: status_pb2.Status) -> Iterator[message.Message]:
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                yield detail
