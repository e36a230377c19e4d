"""What order makes of the product service's answers, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from uuid import UUID, uuid4

import grpc
import pytest
from google.type import money_pb2
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from order import catalog, product_stock
from order.catalog import ProductUnavailable, Reservation, State
from order.domain import Line
from order.product_stock import ProductStock
from runtime import batch
from runtime.errors import ApiError, database_full, failed_precondition, not_found, query_timeout
from tests.support.order import A, create_request, order_shop
from tests.support.product import refused


class Product(stock_pb2_grpc.StockServiceServicer):
    """A product service that fails as it is told."""

    def __init__(
        self,
        code: grpc.StatusCode | None = None,
        delay: float = 0,
        refusal: ApiError | None = None,
        *,
        knows_batches: bool = True,
    ) -> None:
        self.code = code
        self.refusal = refusal
        """Of each single request, in a batch too."""
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
        results = [_result(each.reservation_id, self.refusal) for each in request.requests]
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
            _result(each, self._unconfirmed(each), stock_pb2.Reservation.CONFIRMED) for each in request.reservation_ids
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
            _result(each, self._unconfirmed(each), stock_pb2.Reservation.RELEASED) for each in request.reservation_ids
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


def _result(
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


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "UNAVAILABLE"),
        (grpc.StatusCode.UNIMPLEMENTED, "UNAVAILABLE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    ],
)
@pytest.mark.parametrize("knows_batches", [True, False])
async def test_failures_of_the_product_service_are_told_in_words_of_our_own(
    order_database: str, code: grpc.StatusCode, answer: str, knows_batches: bool
) -> None:
    product = Product(code, knows_batches=knows_batches)
    async with serving(product) as address, order_shop(order_database, address) as shop:
        with refused() as error:
            await shop.create()
        assert error.what.code == answer
        assert "SQLSTATE" not in error.what.message


@pytest.mark.parametrize("knows_batches", [True, False])
async def test_slow_and_full_catalogue_are_told_as_such_and_not_asked_again(
    order_database: str, knows_batches: bool
) -> None:
    for refusal, answer in (
        (query_timeout("it took too long"), ("DEADLINE_EXCEEDED", "QUERY_TIMEOUT", None)),
        (database_full("it is full"), ("RESOURCE_EXHAUSTED", "DATABASE_FULL", 30)),
    ):
        product = Product(knows_batches=knows_batches)
        async with serving(product) as address, order_shop(order_database, address) as shop:
            key = str(uuid4())
            order = await shop.create(request_id=key)
            product.refusal = refusal
            with refused() as error:
                await shop.create()
            assert (error.what.code, error.what.reason, error.what.retry_after) == answer
            assert error.what.message.endswith("nothing was ordered")
            assert product.calls.count("BatchReserveStock") == 2
            assert product.calls.count("ReserveStock") == (0 if knows_batches else 2)
            assert (await shop.create(request_id=key)).id == order.id, "an order that is there is the answer"


@pytest.mark.parametrize("knows_batches", [True, False])
async def test_the_callers_deadline_reaches_the_product_service(order_database: str, knows_batches: bool) -> None:
    product = Product(knows_batches=knows_batches)
    async with serving(product) as address, order_shop(order_database, address) as shop:
        order = await shop.orders.CreateOrder(create_request(), timeout=2)
        await shop.create()
    first, second = product.deadlines
    assert 1 < first <= 2.1
    assert 4 < second < catalog.RESERVE_TIMEOUT + 0.5
    assert (order.total.units, order.total.nanos) == (1, 5_000)


async def test_a_product_service_that_answers_late_is_unavailable(
    order_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "RESERVE_TIMEOUT", 0.3)
    async with serving(Product(delay=2)) as address, order_shop(order_database, address) as shop:
        with refused() as error:
            await shop.create()
        assert (error.what.code, error.what.message) == ("UNAVAILABLE", "the product service does not answer")


@asynccontextmanager
async def stock_of(product: Product) -> AsyncIterator[ProductStock]:
    async with serving(product) as address, grpc.aio.insecure_channel(address) as channel:
        yield ProductStock(channel)


LINES = [Line(product_id=UUID(A), quantity=1)]


async def reserve(stock: ProductStock, number: int, timeout: float | None = None) -> Sequence[Any]:
    """What so many orders at once are told."""
    calls = (stock.reserve(uuid4(), LINES, timeout) for _ in range(number))
    return await asyncio.gather(*calls, return_exceptions=True)


class TestBatches:
    async def test_orders_that_come_at_once_share_calls(self) -> None:
        product = Product()
        async with stock_of(product) as stock:
            found = await reserve(stock, 100)
        assert {each.state for each in found} == {State.HELD}
        assert product.calls == ["BatchReserveStock"] * 2
        assert [len(each) for each in product.batches] == [64, 36]

    async def test_those_who_come_while_a_call_is_under_way_leave_together(self) -> None:
        product = Product()
        async with stock_of(product) as stock:
            product.open.clear()
            first = asyncio.create_task(reserve(stock, 1))
            await _until(lambda: product.together == 1)
            others = [asyncio.create_task(reserve(stock, 1)) for _ in range(20)]
            await asyncio.sleep(0)
            product.open.set()
            await asyncio.gather(first, *others)
        assert [len(each) for each in product.batches] == [1, 20]

    async def test_calls_for_one_order_are_never_in_one_batch(self) -> None:
        """A batch has one answer for an id, and they may differ: one of them may have other items."""
        product, key = Product(), uuid4()
        async with stock_of(product) as stock:
            calls = (stock.reserve(each, LINES, None) for each in (key, uuid4(), key))
            await asyncio.gather(*calls)
        assert [len(each) for each in product.batches] == [2, 1]
        assert product.batches[1] == [str(key)]

    async def test_one_that_is_refused_takes_no_other_with_it(self) -> None:
        class Choosy(Product):
            async def BatchReserveStock(
                self, request: stock_pb2.BatchReserveStockRequest, context: Any
            ) -> stock_pb2.BatchReserveStockResponse:
                refusals = [
                    None,
                    failed_precondition("INSUFFICIENT_STOCK", "sold out", available="0"),
                    database_full("SQLSTATE"),
                    ApiError(grpc.StatusCode.INTERNAL, "SQLSTATE"),
                    ApiError(grpc.StatusCode.ALREADY_EXISTS, "", *mismatch.details),
                    None,
                ]
                keys = [each.reservation_id for each in request.requests]
                return stock_pb2.BatchReserveStockResponse(results=map(_result, keys, refusals))

        mismatch = failed_precondition("RESERVATION_MISMATCH", "")
        async with stock_of(Choosy()) as stock:
            first, short, full, broken, other, last = await reserve(stock, 6)
        assert isinstance(first, Reservation)
        assert isinstance(last, Reservation)
        assert (short.code, short.text, short.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "sold out",
            "INSUFFICIENT_STOCK",
        )
        assert (full.reason, "SQLSTATE" in full.text) == ("DATABASE_FULL", False)
        assert isinstance(broken, ProductUnavailable)
        assert other.reason == "IDEMPOTENCY_KEY_REUSED"

    async def test_what_a_whole_call_is_refused_for_is_no_fault_of_an_order(self) -> None:
        for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
            async with stock_of(Product(code)) as stock:
                assert [type(each) for each in await reserve(stock, 2)] == [ProductUnavailable] * 2

    async def test_an_order_whose_time_is_over_leaves_its_batch(self) -> None:
        """In the queue it is not sent any more; on its way the others stay."""
        product = Product()
        async with stock_of(product) as stock:
            product.open.clear()
            patient = asyncio.create_task(reserve(stock, 1, 5))
            hasty = asyncio.create_task(reserve(stock, 1, 0.2))
            await _until(lambda: product.together == 1)
            waiting = asyncio.create_task(reserve(stock, 1, batch.RELIEF / 5))
            assert [type(each) for each in await waiting] == [ProductUnavailable]
            assert [type(each) for each in await hasty] == [ProductUnavailable]
            assert not patient.done()
            product.open.set()
            (found,) = await patient
            assert isinstance(found, Reservation)
            await reserve(stock, 1)
        assert [len(each) for each in product.batches] == [2, 1]
        assert 4 < product.deadlines[0] <= 5.1, "the most that one of them has"

    async def test_a_late_batch_leaves_without_those_whose_time_is_over(self) -> None:
        """They have not been told yet: the loop was busy."""
        product = Product()
        async with stock_of(product) as stock:
            late = product_stock._Hold(stock_pb2.ReserveStockRequest(reservation_id="late"), product_stock._now())
            good = product_stock._Hold(stock_pb2.ReserveStockRequest(reservation_id="good"), product_stock._now() + 2)
            found = await stock._reserve_all([late, good])
            assert [type(each) for each in found] == [ProductUnavailable, Reservation]
            assert [type(each) for each in await stock._reserve_all([late])] == [ProductUnavailable]
        assert product.batches == [["good"]]

    async def test_too_many_are_refused_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All count who wait or are under way."""
        monkeypatch.setattr(catalog, "MOST_WAITING", 5)
        product = Product()
        async with stock_of(product) as stock:
            product.open.clear()
            waiting = [asyncio.create_task(reserve(stock, 1)) for _ in range(5)]
            await _until(lambda: product.together == 1)
            (refusal,) = await reserve(stock, 1)
            assert (refusal.code, refusal.text) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "too many calls are waiting",
            )
            product.open.set()
            assert {type(each) for found in await asyncio.gather(*waiting) for each in found} == {Reservation}
            assert isinstance((await reserve(stock, 1))[0], Reservation)

    async def test_an_older_product_service_is_called_for_each_side_by_side(self) -> None:
        product = Product(delay=0.1, knows_batches=False)
        async with stock_of(product) as stock:
            found = await reserve(stock, 30)
            assert {each.state for each in found} == {State.HELD}
            assert (product.calls.count("ReserveStock"), product.most_together) == (30, 30)
            ids = [uuid4() for _ in range(3)]
            product.unknown = {str(ids[1])}
            confirmed = await stock.batch_confirm(ids)
            assert [each and each.state for each in confirmed if not isinstance(each, Exception)] == [
                State.CONFIRMED,
                None,
                State.CONFIRMED,
            ]
            assert await stock.batch_release([ids[0], ids[2]]) == [None, None]
            assert [type(each) for each in await stock.batch_release(ids)] == [
                *(type(None), ProductUnavailable, type(None)),
            ]

    @pytest.mark.parametrize("knows_batches", [True, False])
    async def test_confirmations_and_releases_stand_or_fall_alone(self, knows_batches: bool) -> None:
        product = Product(knows_batches=knows_batches)
        ids = [uuid4() for _ in range(3)]
        product.unknown = {str(ids[1])}
        async with stock_of(product) as stock:
            first, none, last = await stock.batch_confirm(ids)
            assert isinstance(first, Reservation)
            assert isinstance(last, Reservation)
            assert (first.state, none, last.state) == (State.CONFIRMED, None, State.CONFIRMED)
            product.refusal = query_timeout("SQLSTATE")
            assert [type(each) for each in await stock.batch_confirm(ids)] == [
                *(ProductUnavailable, type(None), ProductUnavailable),
            ]
            assert [type(each) for each in await stock.batch_release(ids)] == [ProductUnavailable] * 3
            product.refusal, product.unknown = None, set()
            assert await stock.batch_release(ids) == [None] * 3
            product.code = grpc.StatusCode.UNAVAILABLE
            if knows_batches:
                for call in (stock.batch_confirm, stock.batch_release):
                    with pytest.raises(ProductUnavailable):
                        await call(ids)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
