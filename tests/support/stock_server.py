"""A product service over real gRPC that fails as told, for tests of how order handles its responses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeAlias

import grpc
from google.type import money_pb2
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from runtime.errors import ApiError, not_found
from tests.support.order import A

State: TypeAlias = stock_pb2.Reservation.State.ValueType
HELD, CONFIRMED, RELEASED = (
    stock_pb2.Reservation.HELD,
    stock_pb2.Reservation.CONFIRMED,
    stock_pb2.Reservation.RELEASED,
)


class Product(stock_pb2_grpc.StockServiceServicer):
    """A product service that fails as told."""

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
        """The error of each request, in a batch too. If `as_a_whole`, it is the error of the whole batch."""
        self.as_a_whole = as_a_whole
        self.delay = delay
        self.knows_batches = knows_batches
        self.deadlines: list[float] = []
        self.calls: list[str] = []
        self.batches: list[list[str]] = []
        """The ids of each BatchReserveStock call."""
        self.requests: list[stock_pb2.ReserveStockRequest] = []
        """The holds that were requested, in batches or alone."""
        self.unknown: set[str] = set()
        """Reservations that do not exist, so they can be neither confirmed nor released."""
        self.open = asyncio.Event()
        """Every call waits for it."""
        self.open.set()
        self.together = self.most_together = 0
        """The calls under way, now and at most."""

    async def _serve(self, name: str, context: Any) -> None:
        """Records a call, and waits or fails as told."""
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

    async def _single(
        self, name: str, reservation_id: str, state: State, context: Any, refusal: ApiError | None
    ) -> stock_pb2.Reservation:
        await self._serve(name, context)
        if refusal:
            await context.abort(refusal.code, refusal.text, refusal.trailers())
        return reservation(reservation_id, state)

    def _refusal(self, reservation_id: str) -> ApiError | None:
        missing = reservation_id in self.unknown
        return not_found("RESERVATION_NOT_FOUND", "reservation not found") if missing else self.refusal

    async def ReserveStock(self, request: stock_pb2.ReserveStockRequest, context: Any) -> stock_pb2.Reservation:
        self.requests.append(request)
        return await self._single("ReserveStock", request.reservation_id, HELD, context, self.refusal)

    async def BatchReserveStock(
        self, request: stock_pb2.BatchReserveStockRequest, context: Any
    ) -> stock_pb2.BatchReserveStockResponse:
        if self.knows_batches:
            self.batches.append([each.reservation_id for each in request.requests])
            self.requests += request.requests
        await self._serve("BatchReserveStock", context)
        if self.refusal and self.as_a_whole:
            await context.abort(self.refusal.code, self.refusal.text, self.refusal.trailers())
        results = [result(each.reservation_id, self.refusal) for each in request.requests]
        return stock_pb2.BatchReserveStockResponse(results=results)

    async def ConfirmReservation(
        self, request: stock_pb2.ConfirmReservationRequest, context: Any
    ) -> stock_pb2.Reservation:
        key = request.reservation_id
        return await self._single("ConfirmReservation", key, CONFIRMED, context, self._refusal(key))

    async def BatchConfirmReservations(
        self, request: stock_pb2.BatchConfirmReservationsRequest, context: Any
    ) -> stock_pb2.BatchConfirmReservationsResponse:
        await self._serve("BatchConfirmReservations", context)
        results = [result(each, self._refusal(each), CONFIRMED) for each in request.reservation_ids]
        return stock_pb2.BatchConfirmReservationsResponse(results=results)

    async def ReleaseReservation(
        self, request: stock_pb2.ReleaseReservationRequest, context: Any
    ) -> stock_pb2.Reservation:
        key = request.reservation_id
        return await self._single("ReleaseReservation", key, RELEASED, context, self._refusal(key))

    async def BatchReleaseReservations(
        self, request: stock_pb2.BatchReleaseReservationsRequest, context: Any
    ) -> stock_pb2.BatchReleaseReservationsResponse:
        await self._serve("BatchReleaseReservations", context)
        results = [result(each, self._refusal(each), RELEASED) for each in request.reservation_ids]
        return stock_pb2.BatchReleaseReservationsResponse(results=results)

    async def ListExpiredReservations(
        self, request: stock_pb2.ListExpiredReservationsRequest, context: Any
    ) -> stock_pb2.ListExpiredReservationsResponse:
        return stock_pb2.ListExpiredReservationsResponse()

    async def PairDatabases(self, request: stock_pb2.PairDatabasesRequest, context: Any) -> stock_pb2.DatabasePair:
        """Fails as in an older product service, which does not know this call."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        raise AssertionError("abort raises")

    async def BatchGetReservations(self, request: stock_pb2.BatchGetReservationsRequest, context: Any) -> NoReturn:
        raise AssertionError("only `reconcile` calls this")

    async def BatchGetOffers(self, request: stock_pb2.BatchGetOffersRequest, context: Any) -> NoReturn:
        raise AssertionError("only carts call this")

    async def ListReservations(self, request: stock_pb2.ListReservationsRequest, context: Any) -> NoReturn:
        raise AssertionError("only `reconcile` calls this")


def reservation(reservation_id: str, state: State = HELD) -> stock_pb2.Reservation:
    """Returns a reservation of one piece of product A."""
    price = money_pb2.Money(currency_code="EUR", units=1, nanos=5_000)
    item = stock_pb2.ReservedItem(product_id=A, quantity=1, name="Watch", unit_price=price)
    return stock_pb2.Reservation(id=reservation_id, state=state, items=[item])


def result(reservation_id: str, refusal: ApiError | None, state: State = HELD) -> stock_pb2.ReservationResult:
    """Returns one result of a batch: the refusal, or a reservation."""
    if refusal:
        return stock_pb2.ReservationResult(error=refusal.status())
    return stock_pb2.ReservationResult(reservation=reservation(reservation_id, state))


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
