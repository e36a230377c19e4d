"""Orders that come at once share calls to the product service, and each has an answer of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from shop.product.v1 import stock_pb2

from order import stock as stock_module
from order import stock_client
from order.domain import Line
from order.stock import ProductUnavailable, Reservation, ReservationState
from order.stock_client import StockClient
from runtime import batch
from runtime.errors import ApiError, database_full, failed_precondition, query_timeout
from tests.support.order import A
from tests.support.stock_server import Product, result, serving


@asynccontextmanager
async def stock_of(product: Product) -> AsyncIterator[StockClient]:
    async with serving(product) as address, grpc.aio.insecure_channel(address) as channel:
        yield StockClient(channel)


LINES = [Line(product_id=UUID(A), quantity=1)]


async def reserve(stock: StockClient, number: int, timeout: float | None = None) -> Sequence[Any]:
    """What so many orders at once are told."""
    calls = (stock.reserve(uuid4(), LINES, timeout) for _ in range(number))
    return await asyncio.gather(*calls, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_orders_that_come_at_once_share_calls() -> None:
    product = Product()
    async with stock_of(product) as stock:
        found = await reserve(stock, 100)
    assert {each.state for each in found} == {ReservationState.HELD}
    assert product.calls == ["BatchReserveStock"] * 2
    assert [len(each) for each in product.batches] == [64, 36]


async def test_those_who_come_while_a_call_is_under_way_leave_together() -> None:
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


async def test_calls_for_one_order_are_never_in_one_batch() -> None:
    """A batch has one answer for an id, and they may differ: one of them may have other items."""
    product, key = Product(), uuid4()
    async with stock_of(product) as stock:
        calls = (stock.reserve(each, LINES, None) for each in (key, uuid4(), key))
        await asyncio.gather(*calls)
    assert sorted(len(each) for each in product.batches) == [1, 2]
    assert min(product.batches, key=len) == [str(key)]


async def test_one_that_is_refused_takes_no_other_with_it() -> None:
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
            return stock_pb2.BatchReserveStockResponse(results=map(result, keys, refusals))

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


async def test_what_a_whole_call_is_refused_for_is_no_fault_of_an_order() -> None:
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        async with stock_of(Product(code)) as stock:
            assert [type(each) for each in await reserve(stock, 2)] == [ProductUnavailable] * 2


async def test_an_order_whose_time_is_over_leaves_its_batch() -> None:
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


async def test_a_late_batch_leaves_without_those_whose_time_is_over() -> None:
    """They have not been told yet: the loop was busy."""
    product = Product()
    async with stock_of(product) as stock:
        late = stock_client._Hold(stock_pb2.ReserveStockRequest(reservation_id="late"), stock_client._now())
        good = stock_client._Hold(stock_pb2.ReserveStockRequest(reservation_id="good"), stock_client._now() + 2)
        found = await stock._reserve_all([late, good])
        assert [type(each) for each in found] == [ProductUnavailable, Reservation]
        assert [type(each) for each in await stock._reserve_all([late])] == [ProductUnavailable]
    assert product.batches == [["good"]]


async def test_too_many_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All count who wait or are under way."""
    monkeypatch.setattr(stock_module, "MAX_WAITING", 5)
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


async def test_an_older_product_service_is_called_for_each_side_by_side() -> None:
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
async def test_confirmations_and_releases_stand_or_fall_alone(knows_batches: bool) -> None:
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
