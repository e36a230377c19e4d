"""Deadlines, cancellations and overload: calls end completely or not at all, and queues are bounded."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import grpc
import psycopg
import pytest
from shop.order.v1 import order_pb2

from order import stock as stock_module
from order.domain import Line
from order.stock import Reservation, ReservationState
from runtime.errors import with_reason
from runtime.prices import Price
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.locks import until_none_waits, until_waiting
from tests.support.order import A, FakeStock, OrderShop, create_request, order_shop
from tests.support.product import Refusal, product_shop, refusal_of, refused
from tests.support.proxy import Proxy


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock(), DATABASE_POOL_SIZE="2", DATABASE_POOL_WAITING="6") as shop:
        yield shop


async def test_deadline_ends_statements_in_the_database(shop: OrderShop) -> None:
    """The statements end, and their connections serve the next call."""
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
            results = await asyncio.gather(*(call() for _ in range(4)), return_exceptions=True)
            codes = {each.code() for each in results if isinstance(each, grpc.aio.AioRpcError)}
            assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
            await until_none_waits(shop.conninfo, 1)
            await other.rollback()
    assert await shop.get(order.id) == order


async def test_create_of_disconnected_client_is_finished(order_database: str) -> None:
    """Its stock is reserved, so the order is written: no hold is left that keeps others from buying."""
    reserved = asyncio.Event()

    class Slow(FakeStock):
        async def reserve(
            self, order_id: UUID, lines: Sequence[Line], timeout: float | None, expected: Price | None = None
        ) -> Reservation:
            reservation = await super().reserve(order_id, lines, timeout, expected)
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

        await eventually(lambda: [each.state for each in stock.reservations.values()] == [ReservationState.CONFIRMED])
        assert len((await shop.orders.ListOrders(order_pb2.ListOrdersRequest())).orders) == 1


async def flood(call: Callable[[], Awaitable[Any]], number: int) -> tuple[list[Refusal], float]:
    """Makes concurrent calls. Returns their errors, and the median time until a call failed, in seconds."""
    began = time.monotonic()
    first = []

    async def one() -> Any:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            first.append(time.monotonic() - began)
            return refusal_of(error)

    results = await asyncio.gather(*(one() for _ in range(number)))
    return [each for each in results if isinstance(each, Refusal)], sorted(first)[len(first) // 2]


async def test_calls_beyond_the_queue_are_refused_at_once(shop: OrderShop) -> None:
    order = await shop.create()
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
        await other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        get = order_pb2.GetOrderRequest(id=order.id)
        refusals, median = await flood(lambda: shop.orders.GetOrder(get, timeout=1), 100)
        await other.rollback()
    codes = Counter(each.code for each in refusals)
    assert codes["RESOURCE_EXHAUSTED"] >= 90
    assert set(codes) <= {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert {each.retry_after for each in refusals if each.code == "RESOURCE_EXHAUSTED"} == {1.0}
    assert median < 0.5
    await asyncio.sleep(0.5)  # the statements of callers who have left end now
    assert await shop.get(order.id) == order


async def test_creates_beyond_the_queue_reserve_no_stock(order_database: str) -> None:
    """Otherwise the clients that retry later would hold stock meanwhile."""
    stock = FakeStock()
    async with order_shop(order_database, stock, DATABASE_POOL_SIZE="2", DATABASE_POOL_WAITING="6") as shop:
        async with await psycopg.AsyncConnection.connect(order_database) as other:
            await other.execute("LOCK TABLE orders IN SHARE MODE")
            flooding = asyncio.create_task(flood(lambda: shop.orders.CreateOrder(create_request()), 100))
            await asyncio.sleep(0.7)
            await other.rollback()
        refusals, median = await flooding
        assert Counter(each.code for each in refusals)["RESOURCE_EXHAUSTED"] >= 60
        assert median < 0.5
        assert len(stock.reservations) + len(refusals) == 100
        orders = (await shop.orders.ListOrders(order_pb2.ListOrdersRequest(page_size=100))).orders
        assert {each.id for each in orders} == {str(each) for each in stock.reservations}


async def test_overload_of_product_service_reaches_client(order_database: str, product_database: str) -> None:
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
            refusals, median = await flood(lambda: shop.orders.CreateOrder(request, timeout=1), 40)
            await other.rollback()
        # The second may come after the flood, which is refused in its place.
        await asyncio.gather(*others, return_exceptions=True)
        codes = Counter(each.code for each in refusals)
        assert codes["RESOURCE_EXHAUSTED"] >= 36
        assert {each.retry_after for each in refusals if each.code == "RESOURCE_EXHAUSTED"} == {1.0}
        assert median < 0.5


async def test_orders_waiting_for_product_are_bounded(order_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts connections and never responds."""
    monkeypatch.setattr(stock_module, "MAX_WAITING", 10)

    proxy = Proxy(1)
    proxy.silent = True
    async with proxy.running(), order_shop(order_database, f"127.0.0.1:{proxy.port}") as shop:
        refusals, median = await flood(lambda: shop.orders.CreateOrder(create_request(), timeout=1), 60)
        codes = Counter(each.code for each in refusals)
        assert codes["RESOURCE_EXHAUSTED"] == 50
        assert sum(codes.values()) == 60
        assert median < 0.5


async def test_no_stock_is_reserved_without_database(order_database: str, postgres: DatabaseServer) -> None:
    """Otherwise the clients that retry later would hold all stock, and the shop would be sold out without a sale."""
    stock = FakeStock()
    async with order_shop(order_database, stock, DATABASE_TIMEOUT="1") as shop:
        await shop.create()

        async def known() -> bool:
            before = len(stock.calls)
            with refused() as error:
                await shop.create()
            assert error.code == "UNAVAILABLE"
            return len(stock.calls) == before

        with postgres.shut(order_database):
            await eventually(known)


async def test_many_calls_fail_soon_without_database(order_database: str, postgres: DatabaseServer) -> None:
    """Calls for one order or for many, in any number of batches, do not wait for a connection one after the other."""
    async with order_shop(order_database, FakeStock(), DATABASE_TIMEOUT="5") as shop:
        order = await shop.create()
        get = order_pb2.GetOrderRequest(id=order.id)

        async def known() -> bool:
            began = time.monotonic()
            with refused() as error:
                await shop.orders.GetOrder(get)
            assert error.code == "UNAVAILABLE"
            return time.monotonic() - began < 2

        with postgres.shut(order_database):
            await eventually(known)
            for call in (lambda: shop.orders.GetOrder(get), lambda: shop.move("PROCESSED", order.id)):
                began = time.monotonic()
                refusals, _ = await flood(call, 150)
                assert Counter(each.code for each in refusals) == {"UNAVAILABLE": 150}
                assert time.monotonic() - began < 4


async def test_replay_succeeds_if_product_refuses(order_database: str) -> None:
    """Its database was restored from an older backup, and the products are sold out."""

    class Restored(FakeStock):
        sold_out = False

        async def reserve(
            self, order_id: UUID, lines: Sequence[Line], timeout: float | None, expected: Price | None = None
        ) -> Reservation:
            if self.sold_out:
                raise with_reason(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", "sold out")
            return await super().reserve(order_id, lines, timeout, expected)

    stock = Restored()
    key = "7f3c2b1a-0000-4000-8000-000000000001"
    async with order_shop(order_database, stock) as shop:
        order = await shop.create({A: 1}, request_id=key)
        stock.sold_out = True
        assert await shop.create({A: 1}, request_id=key) == order
        with refused() as error:
            await shop.create({A: 1})
        assert error.reason == "INSUFFICIENT_STOCK"
