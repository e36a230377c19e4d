"""Stock follows orders: it is confirmed for a new order, and released once for a cancelled or expired one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from order import stock
from order.domain import Line, derive_id
from order.jobs import expired_holds
from order.stock import ProductUnavailable, Reservation, ReservationState
from runtime.prices import Price
from tests.support.eventually import eventually
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.order import A, B, FakeStock, OrderShop, order_shop, status_name
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
    """The reaper polls five times a second."""
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
    """Makes all holds expire."""
    await rows(products.conninfo, "UPDATE reservation SET expire_time = now() - interval '1 minute'")


async def has_stock(products: ProductShop, product_id: str, pieces: int) -> bool:
    return await products.stock_of(product_id) == pieces


async def test_new_order_is_confirmed(shop: OrderShop, products: ProductShop) -> None:
    product = await products.create()
    order = await shop.create({product.id: 3})
    await all_settled(shop, products)
    assert await rows(products.conninfo, "SELECT id::text, state FROM reservation") == [(order.id, "CONFIRMED")]


async def test_cancelled_order_releases_its_stock_once(shop: OrderShop, products: ProductShop) -> None:
    """Within ten seconds, however often it is cancelled."""
    product = await products.create()
    order = await shop.create({product.id: 3})
    other = await shop.create({product.id: 2})
    await asyncio.gather(*(shop.move("CANCELLED", order.id) for _ in range(5)))

    await eventually(lambda: has_stock(products, product.id, 8), 10)
    await shop.move("CANCELLED", order.id)
    await all_settled(shop, products)
    assert await products.stock_of(product.id) == 8
    assert status_name(await shop.get(other.id)) == "PLACED"


class TestExpiredHolds:
    async def test_hold_without_order_is_released(self, shop: OrderShop, products: ProductShop) -> None:
        """A process crashed between reserving stock and writing the order."""
        product = await products.create()
        hold = await products.reserve({product.id: 4})
        await asyncio.sleep(0.5)
        assert await products.stock_of(product.id) == 6, "not before its time"
        await expire(products)
        await all_settled(shop, products)
        assert await products.stock_of(product.id) == 10
        with refused() as error:
            await shop.get(hold.id)
        assert error.reason == "ORDER_NOT_FOUND"

    async def test_create_after_expiry_is_refused(self, shop: OrderShop, products: ProductShop) -> None:
        """The key can never place an order."""
        product = await products.create()
        key = uuid4()
        await products.reserve({product.id: 4}, str(derive_id("", key)))
        await expire(products)
        await all_settled(shop, products)
        for _ in range(2):
            with refused() as error:
                await shop.create({product.id: 4}, request_id=str(key))
            assert (error.code, error.reason) == ("ABORTED", "ORDER_EXPIRED")
        assert await products.stock_of(product.id) == 10
        assert await shop.create({product.id: 4}, request_id=str(uuid4()))

    async def test_hold_with_order_is_confirmed(self, shop: OrderShop, products: ProductShop) -> None:
        """No relay has confirmed it in time."""
        product = await products.create()
        order = await shop.create({product.id: 3})
        await all_settled(shop, products)
        await rows(products.conninfo, "UPDATE reservation SET state = 'HELD'")
        await expire(products)
        await all_settled(shop, products)
        assert await rows(products.conninfo, "SELECT id::text, state FROM reservation") == [(order.id, "CONFIRMED")]

    @pytest.mark.usefixtures("quick")
    async def test_hold_of_other_products_is_released(self, order_database: str) -> None:
        """A key was used again while a restored product database had lost its order's reservation.

        The process that would have released the stock has crashed.
        """
        stock = FakeStock()
        async with order_shop(order_database, stock) as shop:
            order = await shop.create({A: 1})

            await eventually(shop.outbox_is_empty)
            del stock.reservations[UUID(order.id)]
            await stock.reserve(UUID(order.id), [Line(product_id=UUID(B), quantity=7)], None)
            stock.overdue = [UUID(order.id)]

            await eventually(lambda: stock.state(order.id) is ReservationState.RELEASED, 5)

    async def test_holds_beyond_one_page_are_settled(
        self, order_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(expired_holds, "HOLD_PAGE_SIZE", 3)
        stock = FakeStock()
        stock.overdue = [uuid4() for _ in range(10)]
        async with order_shop(order_database, stock) as shop:
            await eventually(lambda: not stock.overdue, 4)
            assert {state.state for state in stock.reservations.values()} == {ReservationState.RELEASED}
            assert len(await rows(shop.conninfo, "SELECT id FROM orders WHERE status = 'EXPIRED'")) == 10

    async def test_failing_hold_does_not_block_others(
        self, order_database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not even a page of them. The log names one."""
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
            await eventually(lambda: set(stock.overdue) == set(stuck), 4)
        assert f"3 of 3 expired holds could not be settled, such as that of order {stuck[0]}" in caplog.text
        assert caplog.text.count("could not be settled") == 1

    @pytest.mark.usefixtures("quick")
    async def test_hold_of_cancelled_order_is_released(self, order_database: str) -> None:
        """A restored product database has the hold again."""
        stock = FakeStock()
        async with order_shop(order_database, stock) as shop:
            order = await shop.create()
            await shop.move("CANCELLED", order.id)

            await eventually(shop.outbox_is_empty)
            stock.reservations[UUID(order.id)] = Reservation(ReservationState.HELD, "EUR", [])
            stock.overdue = [UUID(order.id)]

            await eventually(lambda: not stock.overdue)
        assert stock.state(order.id) is ReservationState.RELEASED


def test_hold_is_settled_within_a_minute() -> None:
    """As docs/api.md says: its time-to-live, the time until the next poll, and two calls."""
    assert stock.HOLD_TTL + 1.2 * expired_holds.HOLD_POLL_INTERVAL + 2 * stock.CALL_TIMEOUT < 60


@pytest.mark.usefixtures("quick")
async def test_slow_create_loses_against_the_reaper(order_database: str) -> None:
    """Its hold expires between reserving and writing, and is settled: it must not become an order."""

    class Slow(FakeStock):
        async def reserve(
            self, order_id: UUID, lines: Sequence[Line], timeout: float | None, expected: Price | None = None
        ) -> Reservation:
            reservation = await super().reserve(order_id, lines, timeout, expected)
            self.overdue.append(order_id)

            await eventually(lambda: order_id not in self.overdue)
            return reservation

    stock = Slow()
    async with order_shop(order_database, stock) as shop:
        with refused() as error:
            await shop.create()
        assert (error.code, error.reason) == ("ABORTED", "ORDER_EXPIRED")
        assert [each.state for each in stock.reservations.values()] == [ReservationState.RELEASED]
        assert await rows(shop.conninfo, "SELECT * FROM order_event") == []
        assert await rows(shop.conninfo, "SELECT * FROM outbox") == []
