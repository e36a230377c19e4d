"""Stock follows orders: confirmed when the order is there, given back once when it is cancelled or never came to be."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from order import stock
from order.domain import Line, derive_id
from order.jobs import expired_holds
from order.stock import ProductUnavailable, Reservation, ReservationState
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.order import A, B, FakeStock, OrderShop, eventually, order_shop, status_name
from tests.support.product import ProductShop, product_shop, refused


@pytest.fixture
async def products(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


@pytest.fixture
async def shop(order_database: str, products: ProductShop, quick: None) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, products.address) as shop:
        yield shop


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reconciler looks each fifth of a second."""
    monkeypatch.setattr(expired_holds, "HOLD_POLL_INTERVAL", 0.2)


async def all_settled(shop: OrderShop, products: ProductShop) -> None:
    async with shop.connection() as orders, products.connection() as stock:
        await eventually(lambda: settled(orders, stock))
        await check_logs(orders)
        await check_stock(stock)


async def rows(conninfo: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        cursor = await connection.execute(query.encode(), values)
        return await cursor.fetchall() if cursor.description else []


async def expire(products: ProductShop) -> None:
    """All holds were made long ago."""
    await rows(products.conninfo, "UPDATE reservation SET expire_time = now() - interval '1 minute'")


async def test_an_order_is_confirmed_soon(shop: OrderShop, products: ProductShop) -> None:
    product = await products.create()
    order = await shop.create({product.id: 3})
    await all_settled(shop, products)
    assert await rows(products.conninfo, "SELECT id::text, state FROM reservation") == [(order.id, "CONFIRMED")]


async def test_a_cancelled_order_gives_its_stock_back_once(shop: OrderShop, products: ProductShop) -> None:
    """Within ten seconds, however often and by how many it is cancelled."""
    product = await products.create()
    order = await shop.create({product.id: 3})
    other = await shop.create({product.id: 2})
    await asyncio.gather(*(shop.move("CANCELLED", order.id) for _ in range(5)))

    async def back() -> bool:
        return await products.stock_of(product.id) == 8

    await eventually(back, 10)
    await shop.move("CANCELLED", order.id)
    await all_settled(shop, products)
    assert await products.stock_of(product.id) == 8
    assert status_name(await shop.get(other.id)) == "PLACED"


class TestExpiredHolds:
    async def test_a_hold_without_an_order_is_freed(self, shop: OrderShop, products: ProductShop) -> None:
        """As after a crash between setting stock aside and writing the order."""
        product = await products.create()
        hold = await products.reserve({product.id: 4})
        await asyncio.sleep(0.5)
        assert await products.stock_of(product.id) == 6, "not before its time"
        await expire(products)
        await all_settled(shop, products)
        assert await products.stock_of(product.id) == 10
        with refused() as error:
            await shop.get(hold.id)
        assert error.what.reason == "ORDER_NOT_FOUND"

    async def test_a_late_create_meets_the_tombstone(self, shop: OrderShop, products: ProductShop) -> None:
        """Nothing was ordered, and under this key nothing ever will be."""
        product = await products.create()
        key = uuid4()
        await products.reserve({product.id: 4}, str(derive_id("", key)))
        await expire(products)
        await all_settled(shop, products)
        for _ in range(2):
            with refused() as error:
                await shop.create({product.id: 4}, request_id=str(key))
            assert (error.what.code, error.what.reason) == ("ABORTED", "ORDER_EXPIRED")
        assert await products.stock_of(product.id) == 10
        assert await shop.create({product.id: 4}, request_id=str(uuid4()))

    async def test_a_hold_with_an_order_is_confirmed(self, shop: OrderShop, products: ProductShop) -> None:
        """As when no relay came to it in time."""
        product = await products.create()
        order = await shop.create({product.id: 3})
        await all_settled(shop, products)
        await rows(products.conninfo, "UPDATE reservation SET state = 'HELD'")
        await expire(products)
        await all_settled(shop, products)
        assert await rows(products.conninfo, "SELECT id::text, state FROM reservation") == [(order.id, "CONFIRMED")]

    @pytest.mark.usefixtures("quick")
    async def test_a_hold_of_other_goods_is_released(self, order_database: str) -> None:
        """A key was used again while a restored product database had lost its order's reservation, and the process that
        would have given the stock back has died."""
        stock = FakeStock()
        async with order_shop(order_database, stock) as shop:
            order = await shop.create({A: 1})

            async def told() -> bool:
                return not await rows(order_database, "SELECT FROM outbox")

            await eventually(told)
            del stock.reservations[UUID(order.id)]
            await stock.reserve(UUID(order.id), [Line(product_id=UUID(B), quantity=7)], None)
            stock.overdue = [UUID(order.id)]

            async def released() -> bool:
                return stock.state(order.id) is ReservationState.RELEASED

            await eventually(released, 5)

    async def test_more_holds_than_a_page_are_all_settled(
        self, order_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(expired_holds, "HOLD_PAGE_SIZE", 3)
        stock = FakeStock()
        stock.overdue = [uuid4() for _ in range(10)]
        async with order_shop(order_database, stock) as shop:

            async def done() -> bool:
                return not stock.overdue

            await eventually(done, 4)
            assert {state.state for state in stock.reservations.values()} == {ReservationState.RELEASED}
            assert len(await rows(shop.conninfo, "SELECT id FROM orders WHERE status = 'EXPIRED'")) == 10

    async def test_a_hold_that_cannot_be_settled_keeps_no_other(
        self, order_database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not even a page full of them. The log names one."""
        monkeypatch.setattr(expired_holds, "HOLD_PAGE_SIZE", 3)
        stuck = [uuid4() for _ in range(4)]

        class Stuck(FakeStock):
            async def release(self, order_id: UUID) -> None:
                if order_id in stuck:
                    raise ProductUnavailable
                await super().release(order_id)

        stock = Stuck()
        others = [uuid4() for _ in range(4)]
        stock.overdue = stuck + others
        async with order_shop(order_database, stock):

            async def done() -> bool:
                return set(stock.overdue) == set(stuck)

            await eventually(done, 4)
        assert f"3 of 3 expired holds could not be settled, such as that of order {stuck[0]}" in caplog.text
        assert caplog.text.count("could not be settled") == 1

    @pytest.mark.usefixtures("quick")
    async def test_a_hold_of_a_cancelled_order_is_released(self, order_database: str) -> None:
        """As of one that a restored product database holds once more."""
        stock = FakeStock()
        async with order_shop(order_database, stock) as shop:
            order = await shop.create()
            await shop.move("CANCELLED", order.id)

            async def told() -> bool:
                return not await rows(order_database, "SELECT FROM outbox")

            await eventually(told)
            stock.reservations[UUID(order.id)] = Reservation(ReservationState.HELD, "EUR", [])
            stock.overdue = [UUID(order.id)]

            async def settled() -> bool:
                return not stock.overdue

            await eventually(settled)
        assert stock.state(order.id) is ReservationState.RELEASED


def test_a_hold_is_free_after_a_minute() -> None:
    """docs/api.md says so: until its time is over, until somebody looks, until it is released."""
    assert stock.HOLD_TTL + 1.2 * expired_holds.HOLD_POLL_INTERVAL + 2 * stock.CALL_TIMEOUT < 60


@pytest.mark.usefixtures("quick")
async def test_a_create_between_reserve_and_insert_loses_against_the_reconciler(order_database: str) -> None:
    """Its stock was set aside, its process was slow, and the hold was given up: it must not become an order."""

    class Slow(FakeStock):
        async def reserve(self, *args: Any) -> Reservation:
            reservation = await super().reserve(*args)
            self.overdue.append(args[0])

            async def buried() -> bool:
                return args[0] not in self.overdue

            await eventually(buried)
            return reservation

    stock = Slow()
    async with order_shop(order_database, stock) as shop:
        with refused() as error:
            await shop.create()
        assert (error.what.code, error.what.reason) == ("ABORTED", "ORDER_EXPIRED")
        assert [each.state for each in stock.reservations.values()] == [ReservationState.RELEASED]
        assert await rows(shop.conninfo, "SELECT * FROM order_event") == []
        assert await rows(shop.conninfo, "SELECT * FROM outbox") == []
