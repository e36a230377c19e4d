"""Concurrent orders share calls to the product service, and each has its own result."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from shop.product.v1 import stock_pb2

from order import stock as stock_module
from order.domain import Line
from order.product_calls import ProductCalls
from order.stock import ProductUnavailable, Reservation, ReservationState
from order.stock_client import Hold, StockClient
from runtime import batch
from runtime.errors import ApiError, database_full, query_timeout, with_reason
from tests.support.access import credential
from tests.support.order import A
from tests.support.stock_server import Product, result, serving


@asynccontextmanager
async def stock_of(product: Product) -> AsyncIterator[StockClient]:
    async with serving(product) as address, grpc.aio.insecure_channel(address) as channel:
        yield StockClient(channel, ProductCalls(credential()))


LINES = [Line(product_id=UUID(A), quantity=1)]


async def reserve(stock: StockClient, number: int, timeout: float | None = None) -> Sequence[Any]:
    """Reserves stock for concurrent orders. Returns the reservation or the error of each."""
    calls = (stock.reserve(uuid4(), LINES, timeout) for _ in range(number))
    return await asyncio.gather(*calls, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_concurrent_reservations_share_calls() -> None:
    product = Product()
    async with stock_of(product) as stock:
        found = await reserve(stock, 100)
    assert {each.state for each in found} == {ReservationState.HELD}
    assert product.calls == ["BatchReserveStock"] * 2
    assert [len(each) for each in product.batches] == [64, 36]


async def test_waiting_reservations_are_one_call() -> None:
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


async def test_same_order_is_never_twice_in_a_batch() -> None:
    """A batch has one result for an id, but the two requests may have different items."""
    product, key = Product(), uuid4()
    async with stock_of(product) as stock:
        calls = (stock.reserve(each, LINES, None) for each in (key, uuid4(), key))
        await asyncio.gather(*calls)
    assert sorted(len(each) for each in product.batches) == [1, 2]
    assert min(product.batches, key=len) == [str(key)]


async def test_refused_reservation_does_not_affect_others() -> None:
    class Choosy(Product):
        async def BatchReserveStock(
            self, request: stock_pb2.BatchReserveStockRequest, context: Any
        ) -> stock_pb2.BatchReserveStockResponse:
            refusals = [
                None,
                with_reason(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", "sold out", available="0"),
                database_full("SQLSTATE"),
                ApiError(grpc.StatusCode.INTERNAL, "SQLSTATE"),
                ApiError(grpc.StatusCode.ALREADY_EXISTS, "", *mismatch.details),
                None,
            ]
            keys = [each.reservation_id for each in request.requests]
            return stock_pb2.BatchReserveStockResponse(results=map(result, keys, refusals))

    mismatch = with_reason(grpc.StatusCode.FAILED_PRECONDITION, "RESERVATION_MISMATCH", "")
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


async def test_failed_batch_is_no_fault_of_its_orders() -> None:
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        async with stock_of(Product(code)) as stock:
            assert [type(each) for each in await reserve(stock, 2)] == [ProductUnavailable] * 2


async def test_expired_deadline_leaves_the_batch() -> None:
    """In the queue it is not sent. In a call, the others stay."""
    product = Product()
    async with stock_of(product) as stock:
        product.open.clear()
        patient = asyncio.create_task(reserve(stock, 1, 5))
        hasty = asyncio.create_task(reserve(stock, 1, 0.2))
        await _until(lambda: product.together == 1)
        waiting = asyncio.create_task(reserve(stock, 1, batch.STALLED_BATCH_DELAY / 5))
        assert [type(each) for each in await waiting] == [ProductUnavailable]
        assert [type(each) for each in await hasty] == [ProductUnavailable]
        assert not patient.done()
        product.open.set()
        (found,) = await patient
        assert isinstance(found, Reservation)
        await reserve(stock, 1)
    assert [len(each) for each in product.batches] == [2, 1]
    assert 4 < product.deadlines[0] <= 5.1, "the most that one of them has"


async def test_late_batch_omits_expired_deadlines() -> None:
    """The event loop was too busy to end them in time."""
    product = Product()
    async with stock_of(product) as stock:
        now = asyncio.get_running_loop().time()
        late = Hold(stock_pb2.ReserveStockRequest(reservation_id="late"), now)
        good = Hold(stock_pb2.ReserveStockRequest(reservation_id="good"), now + 2)
        found = await stock.reserve_all([late, good])
        assert [type(each) for each in found] == [ProductUnavailable, Reservation]
        assert [type(each) for each in await stock.reserve_all([late])] == [ProductUnavailable]
    assert product.batches == [["good"]]


async def test_reservations_beyond_the_queue_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reservations that wait or are under way count."""
    monkeypatch.setattr(stock_module, "MAX_WAITING", 5)
    product = Product()
    async with stock_of(product) as stock:
        product.open.clear()
        waiting = [asyncio.create_task(reserve(stock, 1)) for _ in range(5)]
        await _until(lambda: product.together == 1)
        (refusal,) = await reserve(stock, 1)
        assert (refusal.code, refusal.text) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "server overloaded: request queue is full",
        )
        product.open.set()
        assert {type(each) for found in await asyncio.gather(*waiting) for each in found} == {Reservation}
        assert isinstance((await reserve(stock, 1))[0], Reservation)


async def test_older_product_service_gets_single_calls() -> None:
    product = Product(delay=0.1, knows_batches=False)
    async with stock_of(product) as stock:
        found = await reserve(stock, 30)
        assert {each.state for each in found} == {ReservationState.HELD}
        assert (product.calls.count("ReserveStock"), product.most_together) == (30, 30)
        ids = [uuid4() for _ in range(3)]
        product.unknown = {str(ids[1])}
        confirmed = await stock.batch_confirm(ids)
        assert [each and each.state for each in confirmed if not isinstance(each, Exception)] == [
            ReservationState.CONFIRMED,
            None,
            ReservationState.CONFIRMED,
        ]
        assert await stock.batch_release([ids[0], ids[2]]) == [None, None]
        assert [type(each) for each in await stock.batch_release(ids)] == [
            *(type(None), ProductUnavailable, type(None)),
        ]


@pytest.mark.parametrize("knows_batches", [True, False])
async def test_confirmations_and_releases_fail_alone(knows_batches: bool) -> None:
    product = Product(knows_batches=knows_batches)
    ids = [uuid4() for _ in range(3)]
    product.unknown = {str(ids[1])}
    async with stock_of(product) as stock:
        first, none, last = await stock.batch_confirm(ids)
        assert isinstance(first, Reservation)
        assert isinstance(last, Reservation)
        assert (first.state, none, last.state) == (ReservationState.CONFIRMED, None, ReservationState.CONFIRMED)
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
