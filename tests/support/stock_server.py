"""A product service over real gRPC that fails as it is told, for tests of what order makes of its answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.type import money_pb2
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from runtime.errors import ApiError, not_found
from tests.support.order import A


class Product(stock_pb2_grpc.StockServiceServicer):
    """A product service that fails as it is told."""

    def __init__(
        self,
        code: grpc.StatusCode | None = None,
        delay: float = 0,
        refusal: ApiError | None = None,
        *,
        knows_batches: bool = True,
        as_a_whole: bool = False,
    ) -> None:
        self.code = code
        self.refusal = refusal
        """Of each single request; in a batch too, unless that is refused as a whole."""
        self.as_a_whole = as_a_whole
        self.delay = delay
        self.knows_batches = knows_batches
        self.deadlines: list[float] = []
        self.calls: list[str] = []
        self.batches: list[list[str]] = []
        """The ids of each batch for stock."""
        self.unknown: set[str] = set()
        """Reservations that cannot be confirmed because they are not there."""
        self.open = asyncio.Event()
        """Calls for stock wait for it."""
        self.open.set()
        self.together = self.most_together = 0
        """Calls that are under way, now and at most."""

    async def _called(self, name: str, context: Any) -> None:
        self.calls.append(name)
        if name.startswith("Batch") and not self.knows_batches:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        if name.endswith("ReserveStock"):
            self.deadlines.append(context.time_remaining())
        self.together += 1
        self.most_together = max(self.together, self.most_together)
        try:
            await asyncio.sleep(self.delay)
            await self.open.wait()
        finally:
            self.together -= 1
        if self.code:
            await context.abort(self.code, "SQLSTATE 08006: something internal")

    async def ReserveStock(self, request: stock_pb2.ReserveStockRequest, context: Any) -> stock_pb2.Reservation:
        await self._called("ReserveStock", context)
        if self.refusal:
            await context.abort(self.refusal.code, self.refusal.text, self.refusal.trailers())
        return _reserved(request.reservation_id)

    async def BatchReserveStock(
        self, request: stock_pb2.BatchReserveStockRequest, context: Any
    ) -> stock_pb2.BatchReserveStockResponse:
        if self.knows_batches:
            self.batches.append([each.reservation_id for each in request.requests])
        await self._called("BatchReserveStock", context)
        if self.refusal and self.as_a_whole:
            await context.abort(self.refusal.code, self.refusal.text, self.refusal.trailers())
        results = [result(each.reservation_id, self.refusal) for each in request.requests]
        return stock_pb2.BatchReserveStockResponse(results=results)

    async def ConfirmReservation(
        self, request: stock_pb2.ConfirmReservationRequest, context: Any
    ) -> stock_pb2.Reservation:
        await self._called("ConfirmReservation", context)
        if refusal := self._unconfirmed(request.reservation_id):
            await context.abort(refusal.code, refusal.text, refusal.trailers())
        return _reserved(request.reservation_id, stock_pb2.Reservation.CONFIRMED)

    def _unconfirmed(self, reservation_id: str) -> ApiError | None:
        missing = reservation_id in self.unknown
        return not_found("RESERVATION_NOT_FOUND", "there is no reservation") if missing else self.refusal

    async def BatchConfirmReservations(
        self, request: stock_pb2.BatchConfirmReservationsRequest, context: Any
    ) -> stock_pb2.BatchConfirmReservationsResponse:
        await self._called("BatchConfirmReservations", context)
        results = [
            result(each, self._unconfirmed(each), stock_pb2.Reservation.CONFIRMED) for each in request.reservation_ids
        ]
        return stock_pb2.BatchConfirmReservationsResponse(results=results)

    async def ReleaseReservation(
        self, request: stock_pb2.ReleaseReservationRequest, context: Any
    ) -> stock_pb2.Reservation:
        await self._called("ReleaseReservation", context)
        if refusal := self._unconfirmed(request.reservation_id):
            await context.abort(refusal.code, refusal.text, refusal.trailers())
        return _reserved(request.reservation_id, stock_pb2.Reservation.RELEASED)

    async def BatchReleaseReservations(
        self, request: stock_pb2.BatchReleaseReservationsRequest, context: Any
    ) -> stock_pb2.BatchReleaseReservationsResponse:
        await self._called("BatchReleaseReservations", context)
        results = [
            result(each, self._unconfirmed(each), stock_pb2.Reservation.RELEASED) for each in request.reservation_ids
        ]
        return stock_pb2.BatchReleaseReservationsResponse(results=results)

    async def ListExpiredReservations(
        self, request: stock_pb2.ListExpiredReservationsRequest, context: Any
    ) -> stock_pb2.ListExpiredReservationsResponse:
        return stock_pb2.ListExpiredReservationsResponse()

    async def PairDatabases(self, request: stock_pb2.PairDatabasesRequest, context: Any) -> stock_pb2.DatabasePair:
        """As an older product service, which does not know it."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        raise AssertionError("abort raises")

    async def BatchGetReservations(self, request: stock_pb2.BatchGetReservationsRequest, context: Any) -> NoReturn:
        raise AssertionError("only `reconcile` asks")

    async def ListReservations(self, request: stock_pb2.ListReservationsRequest, context: Any) -> NoReturn:
        raise AssertionError("only `reconcile` asks")


def _reserved(
    reservation_id: str, state: stock_pb2.Reservation.State.ValueType = stock_pb2.Reservation.HELD
) -> stock_pb2.Reservation:
    price = money_pb2.Money(currency_code="EUR", units=1, nanos=5_000)
    item = stock_pb2.ReservedItem(product_id=A, quantity=1, name="Watch", unit_price=price)
    return stock_pb2.Reservation(id=reservation_id, state=state, items=[item])


def result(
    reservation_id: str,
    refusal: ApiError | None,
    state: stock_pb2.Reservation.State.ValueType = stock_pb2.Reservation.HELD,
) -> stock_pb2.ReservationResult:
    if refusal:
        return stock_pb2.ReservationResult(error=refusal.status())
    return stock_pb2.ReservationResult(reservation=_reserved(reservation_id, state))


@asynccontextmanager
async def serving(product: Product) -> AsyncIterator[str]:
    server = grpc.aio.server()
    stock_pb2_grpc.add_StockServiceServicer_to_server(product, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
