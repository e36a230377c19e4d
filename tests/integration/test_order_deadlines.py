"""Deadlines, cancellations and overload: work that nobody waits for ends, whole or not at all, and nothing piles up."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import psycopg
import pytest
from shop.order.v1 import order_pb2

from order import stock as stock_module
from order.stock import Reservation, ReservationState
from runtime.errors import failed_precondition
from tests.support.database import TestServer
from tests.support.locks import until_none_waits, until_waiting
from tests.support.order import A, FakeStock, OrderShop, create_request, eventually, order_shop
from tests.support.product import Refusal, product_shop, refusal_of, refused
from tests.support.proxy import Proxy


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock(), DATABASE_POOL_SIZE="2", DATABASE_POOL_WAITING="6") as shop:
        yield shop


async def test_a_deadline_ends_reads_and_writes_in_the_database(shop: OrderShop) -> None:
    """Not only for the caller: the statements are gone, and their connections serve the next call."""
    order = await shop.create()
    get, page = order_pb2.GetOrderRequest(id=order.id), order_pb2.ListOrdersRequest()
    calls: list[Callable[..., Awaitable[Any]]] = [
        lambda: shop.orders.GetOrder(get, timeout=0.5),
        lambda: shop.orders.ListOrders(page, timeout=0.5),
        lambda: shop.move("PROCESSED", order.id, timeout=0.5),
        lambda: shop.move("CANCELLED", order.id, timeout=0.5),
    ]
    for call in calls:
        async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
            await other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            answers = await asyncio.gather(*(call() for _ in range(4)), return_exceptions=True)
            codes = {each.code() for each in answers if isinstance(each, grpc.aio.AioRpcError)}
            assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
            await until_none_waits(shop.conninfo, 1)
            await other.rollback()
    assert await shop.get(order.id) == order


async def test_a_create_whose_caller_leaves_is_finished(order_database: str) -> None:
    """Stock was set aside, so the order is written: no hold is left that keeps others from buying."""
    reserved = asyncio.Event()

    class Slow(FakeStock):
        async def reserve(self, *args: Any) -> Reservation:
            reservation = await super().reserve(*args)
            reserved.set()
            await asyncio.sleep(0.5)
            return reservation

    stock = Slow()
    async with order_shop(order_database, stock) as shop:
        call = shop.orders.CreateOrder(create_request())
        task = asyncio.ensure_future(call.wait_for_connection())
        await reserved.wait()
        call.cancel()
        await asyncio.gather(task, return_exceptions=True)

        async def sold() -> bool:
            return [each.state for each in stock.reservations.values()] == [ReservationState.CONFIRMED]

        await eventually(sold)
        assert len((await shop.orders.ListOrders(order_pb2.ListOrdersRequest())).orders) == 1


async def flood(call: Callable[[], Awaitable[Any]], number: int) -> tuple[list[Refusal], float]:
    """What so many calls at once are told, and how long the first refusal took, in seconds."""
    began = time.monotonic()
    first = []

    async def one() -> Any:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            first.append(time.monotonic() - began)
            return refusal_of(error)

    answers = await asyncio.gather(*(one() for _ in range(number)))
    return [each for each in answers if isinstance(each, Refusal)], sorted(first)[len(first) // 2]


async def test_calls_beyond_pool_and_queue_are_refused_at_once_and_told_when_to_come_back(shop: OrderShop) -> None:
    order = await shop.create()
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
        await other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        get = order_pb2.GetOrderRequest(id=order.id)
        told, median = await flood(lambda: shop.orders.GetOrder(get, timeout=1), 100)
        await other.rollback()
    codes = Counter(each.code for each in told)
    assert codes["RESOURCE_EXHAUSTED"] >= 90
    assert set(codes) <= {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert {each.retry_after for each in told if each.code == "RESOURCE_EXHAUSTED"} == {1.0}
    assert median < 0.5
    await asyncio.sleep(0.5)  # the statements of callers who have left end now
    assert await shop.get(order.id) == order


async def test_creates_beyond_the_queue_are_refused_before_stock_is_set_aside(order_database: str) -> None:
    """Else those who are told to come back hold stock for nothing."""
    stock = FakeStock()
    async with order_shop(order_database, stock, DATABASE_POOL_SIZE="2", DATABASE_POOL_WAITING="6") as shop:
        async with await psycopg.AsyncConnection.connect(order_database) as other:
            await other.execute("LOCK TABLE orders IN SHARE MODE")
            flooding = asyncio.create_task(flood(lambda: shop.orders.CreateOrder(create_request()), 100))
            await asyncio.sleep(0.7)
            await other.rollback()
        told, median = await flooding
        assert Counter(each.code for each in told)["RESOURCE_EXHAUSTED"] >= 60
        assert median < 0.5
        assert len(stock.reservations) + len(told) == 100
        orders = (await shop.orders.ListOrders(order_pb2.ListOrdersRequest(page_size=100))).orders
        assert {each.id for each in orders} == {str(each) for each in stock.reservations}


async def test_a_product_service_past_its_queue_is_told_on_to_the_client(
    order_database: str, product_database: str
) -> None:
    variables = {"STOCK_POOL_SIZE": "1", "DATABASE_POOL_WAITING": "1"}
    async with (
        product_shop(product_database, **variables) as products,
        order_shop(order_database, products.address) as shop,
    ):
        product = await products.create()
        async with await psycopg.AsyncConnection.connect(products.conninfo) as other:
            await other.execute("LOCK TABLE product IN ACCESS EXCLUSIVE MODE")
            others = [asyncio.create_task(products.reserve({product.id: 1})) for _ in range(2)]
            await until_waiting(products.conninfo, 1)
            request = create_request({product.id: 1})
            told, median = await flood(lambda: shop.orders.CreateOrder(request, timeout=1), 40)
            await other.rollback()
        await asyncio.gather(*others)
        codes = Counter(each.code for each in told)
        assert codes["RESOURCE_EXHAUSTED"] >= 36
        assert {each.retry_after for each in told if each.code == "RESOURCE_EXHAUSTED"} == {1.0}
        assert median < 0.5


async def test_orders_that_wait_for_a_silent_product_service_are_bounded(
    order_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody listens and never answers."""
    monkeypatch.setattr(stock_module, "MAX_WAITING", 10)

    proxy = Proxy(1)
    proxy.silent = True
    async with proxy.running(), order_shop(order_database, f"127.0.0.1:{proxy.port}") as shop:
        told, median = await flood(lambda: shop.orders.CreateOrder(create_request(), timeout=1), 60)
        codes = Counter(each.code for each in told)
        assert codes["RESOURCE_EXHAUSTED"] == 50
        assert sum(codes.values()) == 60
        assert median < 0.5


async def test_an_order_that_could_not_be_written_sets_no_stock_aside(
    order_database: str, postgres: TestServer
) -> None:
    """Else those who are told to come back hold all there is, and the shop is sold out without a sale."""
    stock = FakeStock()
    async with order_shop(order_database, stock, DATABASE_TIMEOUT="1") as shop:
        await shop.create()

        async def known() -> bool:
            before = len(stock.calls)
            with refused() as error:
                await shop.create()
            assert error.what.code == "UNAVAILABLE"
            return len(stock.calls) == before

        with postgres.shut(order_database):
            await eventually(known)


async def test_many_calls_are_told_soon_that_the_database_is_away(order_database: str, postgres: TestServer) -> None:
    """However many batches they make, and whether they are on one order or on many, none waits for a connection after
    another."""
    async with order_shop(order_database, FakeStock(), DATABASE_TIMEOUT="5") as shop:
        order = await shop.create()
        get = order_pb2.GetOrderRequest(id=order.id)

        async def known() -> bool:
            began = time.monotonic()
            with refused() as error:
                await shop.orders.GetOrder(get)
            assert error.what.code == "UNAVAILABLE"
            return time.monotonic() - began < 2

        with postgres.shut(order_database):
            await eventually(known)
            for call in (lambda: shop.orders.GetOrder(get), lambda: shop.move("PROCESSED", order.id)):
                began = time.monotonic()
                told, _ = await flood(call, 150)
                assert Counter(each.code for each in told) == {"UNAVAILABLE": 150}
                assert time.monotonic() - began < 4


async def test_an_order_that_exists_is_answered_whatever_the_product_service_says(order_database: str) -> None:
    """As after its database was restored from an older backup, which would have it refuse what it sold."""

    class Restored(FakeStock):
        sold_out = False

        async def reserve(self, *args: Any) -> Reservation:
            if self.sold_out:
                raise failed_precondition("INSUFFICIENT_STOCK", "sold out")
            return await super().reserve(*args)

    stock = Restored()
    key = "7f3c2b1a-0000-4000-8000-000000000001"
    async with order_shop(order_database, stock) as shop:
        order = await shop.create({A: 1}, request_id=key)
        stock.sold_out = True
        assert await shop.create({A: 1}, request_id=key) == order
        with refused() as error:
            await shop.create({A: 1})
        assert error.what.reason == "INSUFFICIENT_STOCK"
