"""What order makes of the product service's answers, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from uuid import uuid4

import grpc
import pytest
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from order import catalog
from runtime.errors import ApiError, database_full, query_timeout
from tests.support.order import A, create_request, order_shop
from tests.support.product import refused


class Product(stock_pb2_grpc.StockServiceServicer):
    """A product service that fails as it is told."""

    def __init__(self, code: grpc.StatusCode | None = None, delay: float = 0, refusal: ApiError | None = None) -> None:
        self.code = code
        self.refusal = refusal
        self.delay = delay
        self.deadlines: list[float] = []

    async def ReserveStock(self, request: stock_pb2.ReserveStockRequest, context: Any) -> stock_pb2.Reservation:
        self.deadlines.append(context.time_remaining())
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.refusal:
            await context.abort(self.refusal.code, self.refusal.text, self.refusal.trailers())
        if self.code:
            await context.abort(self.code, "SQLSTATE 08006: something internal")
        item = stock_pb2.ReservedItem(
            product_id=A, quantity=1, name="Watch", unit_price={"currency_code": "EUR", "units": 1, "nanos": 5_000}
        )
        return stock_pb2.Reservation(id=request.reservation_id, state=stock_pb2.Reservation.HELD, items=[item])

    async def ConfirmReservation(self, request: stock_pb2.ConfirmReservationRequest, context: Any) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "")
        raise AssertionError("abort raises")

    async def ReleaseReservation(self, request: stock_pb2.ReleaseReservationRequest, context: Any) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "")
        raise AssertionError("abort raises")

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


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "UNAVAILABLE"),
        (grpc.StatusCode.UNIMPLEMENTED, "UNAVAILABLE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    ],
)
async def test_failures_of_the_product_service_are_told_in_words_of_our_own(
    order_database: str, code: grpc.StatusCode, answer: str
) -> None:
    async with serving(Product(code)) as address, order_shop(order_database, address) as shop:
        with refused() as error:
            await shop.create()
        assert error.what.code == answer
        assert "SQLSTATE" not in error.what.message


async def test_slow_and_full_catalogue_are_told_as_such_and_not_asked_again(order_database: str) -> None:
    for refusal, answer in (
        (query_timeout("it took too long"), ("DEADLINE_EXCEEDED", "QUERY_TIMEOUT", None)),
        (database_full("it is full"), ("RESOURCE_EXHAUSTED", "DATABASE_FULL", 30)),
    ):
        product = Product()
        async with serving(product) as address, order_shop(order_database, address) as shop:
            key = str(uuid4())
            order = await shop.create(request_id=key)
            product.refusal = refusal
            with refused() as error:
                await shop.create()
            assert (error.what.code, error.what.reason, error.what.retry_after) == answer
            assert error.what.message.endswith("nothing was ordered")
            assert len(product.deadlines) == 2
            assert (await shop.create(request_id=key)).id == order.id, "an order that is there is the answer"


async def test_the_callers_deadline_reaches_the_product_service(order_database: str) -> None:
    product = Product()
    async with serving(product) as address, order_shop(order_database, address) as shop:
        order = await shop.orders.CreateOrder(create_request(), timeout=2)
        await shop.create()
    assert 1 < product.deadlines[0] <= 2.1
    assert 4 < product.deadlines[1] < catalog.RESERVE_TIMEOUT + 0.5
    assert (order.total.units, order.total.nanos) == (1, 5_000)


async def test_a_product_service_that_answers_late_is_unavailable(
    order_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "RESERVE_TIMEOUT", 0.3)
    async with serving(Product(delay=2)) as address, order_shop(order_database, address) as shop:
        with refused() as error:
            await shop.create()
        assert (error.what.code, error.what.message) == ("UNAVAILABLE", "the product service does not answer")
