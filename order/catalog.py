"""The product service as order sees it: stock that is set aside, made lasting, and given back."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol
from uuid import UUID

import grpc
from google.protobuf import message
from google.rpc import error_details_pb2, status_pb2
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from order.domain import Item, Line
from runtime.errors import (
    DATABASE_FULL,
    QUERY_TIMEOUT,
    ApiError,
    already_exists,
    database_full,
    of_call,
    query_timeout,
    resource_exhausted,
    unavailable,
)
from runtime.money import MICROS, NANOS_PER_MICRO

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

    async def expired(self, limit: int, page_token: str) -> tuple[list[UUID], str]:
        """A page of the holds whose time is over, oldest first, and the token of the next page; empty on the last."""
        ...

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool = False, replace: bool = False
    ) -> DatabasePair:
        """Tells the product service which order database calls, and which product database that has on record. It
        records the order database if it has none on record, or to `replace` another one; not if `read_only`."""
        ...


class ProductStock:
    """Stock over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: stock_pb2_grpc.StockServiceAsyncStub = stock_pb2_grpc.StockServiceStub(channel)
        self._waiting = 0

    async def reserve(self, order_id: UUID, lines: Sequence[Line], patience: float | None) -> Reservation:
        request = stock_pb2.ReserveStockRequest(
            reservation_id=str(order_id),
            items=[stock_pb2.StockItem(product_id=str(line.product_id), quantity=line.quantity) for line in lines],
        )
        request.ttl.FromSeconds(HOLD_SECONDS)
        timeout = RESERVE_TIMEOUT if patience is None else min(RESERVE_TIMEOUT, patience)
        if self._waiting >= MOST_WAITING:
            raise _too_many()
        self._waiting += 1
        try:
            return _reservation(await self._stub.ReserveStock(request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            raise _for_clients(error) from None
        finally:
            self._waiting -= 1

    async def confirm(self, order_id: UUID) -> Reservation | None:
        request = stock_pb2.ConfirmReservationRequest(reservation_id=str(order_id))
        try:
            return _reservation(await self._stub.ConfirmReservation(request, timeout=TIMEOUT))
        except grpc.aio.AioRpcError as error:
            if of_call(error)[1] == "RESERVATION_NOT_FOUND":
                return None
            raise ProductUnavailable from None

    async def release(self, order_id: UUID) -> None:
        request = stock_pb2.ReleaseReservationRequest(reservation_id=str(order_id))
        try:
            await self._stub.ReleaseReservation(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError:
            raise ProductUnavailable from None

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


def _for_clients(error: grpc.aio.AioRpcError) -> ApiError:
    code, reason, status = of_call(error)
    if code in _PASSED_ON:
        return ApiError(code, error.details() or "", *_details(status))
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


def key_reused() -> ApiError:
    return already_exists("IDEMPOTENCY_KEY_REUSED", "the idempotency key was used for another order")


def _details(status: status_pb2.Status) -> Iterator[message.Message]:
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                yield detail
