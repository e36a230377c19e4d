"""ReserveStock with the total that a customer saw: nobody pays more, and a refusal writes nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.json_format import MessageToDict
from google.type import money_pb2
from shop.product.v1 import stock_pb2

from product.domain import MAX_STOCK
from product.stock_store import StockStore
from runtime.money import MAX_PRICE_UNITS
from tests.support.locks import until_waiting
from tests.support.product import ProductShop, balanced_shop, euros, refusal_of, refused, reserve_request
from tests.support.requests import max_items
from tests.support.stock_batches import CONFIRMED, HELD, RELEASED, reasons, reserve, states, status_of_call

MAX_ITEMS = max_items(stock_pb2.ReserveStockRequest, "items")


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with balanced_shop(product_database) as shop:
        yield shop


def money(currency: str, units: int, nanos: int = 0) -> money_pb2.Money:
    return money_pb2.Money(currency_code=currency, units=units, nanos=nanos)


async def reservations(shop: ProductShop) -> list[str]:
    """Returns the ids of all reservations that were written."""
    async with shop.connection() as connection:
        rows = await connection.execute("SELECT id::text FROM reservation")
        return [row[0] for row in await rows.fetchall()]


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of holds in each statement."""
    found: list[int] = []
    original = StockStore.reserve

    async def counted(self: StockStore, holds: Any) -> Any:
        found.append(len(holds))
        return await original(self, holds)

    monkeypatch.setattr(StockStore, "reserve", counted)
    return found


class TestTotal:
    @pytest.mark.parametrize("expected", [40, 40.01, 1_000_000])
    async def test_equal_or_lower_total_is_reserved(self, shop: ProductShop, expected: float) -> None:
        watch, band = await shop.create(), await shop.create(price=euros(2.5))
        held = await shop.reserve({watch.id: 3, band.id: 1}, expected=euros(expected))
        assert held.state == HELD
        assert [item.unit_price for item in held.items] == [euros(12.5), euros(2.5)]
        assert [await shop.stock_of(each.id) for each in (watch, band)] == [7, 9]

    async def test_refusal_writes_nothing(self, shop: ProductShop) -> None:
        """Its id can reserve afterwards, with a total that is accepted or without one."""
        watch, band = await shop.create(), await shop.create(price=euros(2.5))
        items = {watch.id: 3, band.id: 1}
        first, second = str(uuid4()), str(uuid4())
        for key in (first, second):
            with refused() as error:
                await shop.reserve(items, key, expected=euros(39.99))
            assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PRICE_CHANGED")
            assert error.metadata == {
                "expected_total": "39.99",
                "total": "40.00",
                "expected_currency": "EUR",
                "currency": "EUR",
            }
            assert error.message == "the items now cost 40.00 EUR, not the expected 39.99 EUR"
        assert await reservations(shop) == []
        assert [await shop.stock_of(each.id) for each in (watch, band)] == [10, 10]
        assert (await shop.reserve(items, first, expected=euros(40))).state == HELD
        assert (await shop.reserve(items, second)).state == HELD
        assert [await shop.stock_of(each.id) for each in (watch, band)] == [4, 8]

    async def test_other_currency_is_refused(self, shop: ProductShop) -> None:
        """However much of it was expected. Amounts have the decimal places of their currencies."""
        vase = await shop.create(price=money("JPY", 1_250))
        with refused() as error:
            await shop.reserve({vase.id: 2}, expected=euros(10_000))
        assert error.reason == "PRICE_CHANGED"
        assert error.metadata == {
            "expected_total": "10000.00",
            "total": "2500",
            "expected_currency": "EUR",
            "currency": "JPY",
        }
        with refused() as error:
            await shop.reserve({vase.id: 2}, expected=money("JPY", 2_499))
        assert (error.metadata["expected_total"], error.metadata["total"]) == ("2499", "2500")
        assert await reservations(shop) == []
        assert (await shop.reserve({vase.id: 2}, expected=money("JPY", 2_500))).state == HELD

    async def test_older_finer_price_is_compared_exactly(self, shop: ProductShop) -> None:
        """Older releases accepted half a yen."""
        vase = await shop.create(price=money("JPY", 100))
        async with shop.connection() as connection:
            await connection.execute("UPDATE product SET price_micros = 100500000")
        with refused() as error:
            await shop.reserve({vase.id: 3}, expected=money("JPY", 301))
        assert error.metadata["total"] == "301.5"
        assert (await shop.reserve({vase.id: 3}, expected=money("JPY", 301, 500_000_000))).state == HELD

    async def test_largest_total_does_not_overflow(self, shop: ProductShop) -> None:
        highest = money("EUR", MAX_PRICE_UNITS)
        ids = [(await shop.create(f"Watch {n}", stock=MAX_STOCK, price=highest)).id for n in range(MAX_ITEMS)]
        items = dict.fromkeys(ids, MAX_STOCK)
        units = MAX_ITEMS * MAX_STOCK * MAX_PRICE_UNITS
        with refused() as error:
            await shop.reserve(items, expected=money("EUR", units - 1, 990_000_000))
        assert error.metadata["expected_total"] == f"{units - 1}.99"
        assert error.metadata["total"] == f"{units}.00"
        with refused() as error:
            await shop.reserve(items, expected=euros(0))
        assert error.metadata["expected_total"] == "0.00"
        assert await reservations(shop) == []
        assert (await shop.reserve(items, expected=money("EUR", units))).state == HELD

    async def test_largest_total_of_money_is_accepted(self, shop: ProductShop) -> None:
        watch = await shop.create()
        held = await shop.reserve({watch.id: 1}, expected=money("EUR", 2**63 - 1, 999_999_999))
        assert held.state == HELD

    async def test_free_items_cost_nothing(self, shop: ProductShop) -> None:
        gift = await shop.create(price=euros(0))
        assert (await shop.reserve({gift.id: 1}, expected=euros(0))).state == HELD

    @pytest.mark.parametrize(
        ("expected", "field"),
        [
            (money_pb2.Money(), "expected_total.currency_code"),
            (money("eur", 1), "expected_total.currency_code"),
            (money("EUR", -1), "expected_total.units"),
            (money("EUR", -(2**63)), "expected_total.units"),
            (money("EUR", 0, -10_000_000), "expected_total.nanos"),
            (money("EUR", 0, 1_000_000_000), "expected_total.nanos"),
        ],
    )
    async def test_malformed_total_is_rejected(self, shop: ProductShop, expected: money_pb2.Money, field: str) -> None:
        watch = await shop.create()
        with refused() as error:
            await shop.reserve({watch.id: 1}, expected=expected)
        assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {field})


class TestOtherReasons:
    async def test_existing_reservation_is_returned_whatever_it_costs(self, shop: ProductShop) -> None:
        watch = await shop.create()
        held, confirmed, released = [await shop.reserve({watch.id: 1}) for _ in range(3)]
        await shop.confirm(confirmed.id)
        await shop.release(released.id)
        await shop.update(watch.id, price=euros(99))
        found = [await shop.reserve({watch.id: 1}, each.id, expected=euros(1)) for each in (held, confirmed, released)]
        assert [each.state for each in found] == [HELD, CONFIRMED, RELEASED]
        assert found[0] == held
        with refused() as error:
            await shop.reserve({watch.id: 2}, held.id, expected=euros(1))
        assert error.reason == "RESERVATION_MISMATCH"

    async def test_other_reasons_go_before_the_price(self, shop: ProductShop) -> None:
        watch, few, gone = await shop.create(), await shop.create(stock=1), await shop.create()
        foreign = await shop.create(price=money("USD", 1))
        await shop.delete(gone.id)
        for items, reason in (
            ({watch.id: 1, str(uuid4()): 1}, "PRODUCT_NOT_FOUND"),
            ({watch.id: 1, gone.id: 1}, "PRODUCT_DELETED"),
            ({watch.id: 1, few.id: 2}, "INSUFFICIENT_STOCK"),
            ({watch.id: 1, foreign.id: 1}, "CURRENCY_MISMATCH"),
            ({watch.id: 1, few.id: 1}, "PRICE_CHANGED"),
        ):
            with refused() as error:
                await shop.reserve(items, expected=euros(0.01))
            assert error.reason == reason
        assert await reservations(shop) == []


class TestBatch:
    async def test_each_request_has_its_own_total(self, shop: ProductShop, rounds: list[int]) -> None:
        """And the same error as alone. One statement decides them all, also those without a total."""
        watch, few = await shop.create(stock=100), await shop.create(stock=1)
        requests = [
            reserve_request({watch.id: 2}, expected=euros(25)),
            reserve_request({watch.id: 2}, expected=euros(24.99)),
            reserve_request({watch.id: 2}),
            reserve_request({watch.id: 2}, expected=money("USD", 25)),
            reserve_request({few.id: 2}, expected=euros(0)),
            reserve_request({watch.id: 2}, expected=money("", 25)),
            reserve_request({watch.id: 2}, expected=euros(26)),
        ]
        results = await reserve(shop, *requests)
        assert reasons(results) == ["", "PRICE_CHANGED", "", "PRICE_CHANGED", "INSUFFICIENT_STOCK", "", ""]
        assert states([results[0], results[2], results[6]]) == [HELD] * 3
        assert rounds == [len(requests) - 1], "all but the malformed one"
        assert await shop.stock_of(watch.id) == 94
        for number in (1, 3, 4, 5):
            alone = await status_of_call(shop.stock.ReserveStock(requests[number]))
            assert MessageToDict(results[number].error) == alone

    async def test_refused_request_takes_no_stock_from_later_ones(self, shop: ProductShop) -> None:
        scarce = await shop.create(stock=3)
        low = reserve_request({scarce.id: 3}, expected=euros(37.49))
        results = await reserve(shop, low, *(reserve_request({scarce.id: 1}, expected=euros(12.5)) for _ in range(4)))
        assert reasons(results) == ["PRICE_CHANGED", "", "", "", "INSUFFICIENT_STOCK"]
        assert await shop.stock_of(scarce.id) == 0

    async def test_id_of_a_refused_request_is_decided_by_the_next_one(self, shop: ProductShop) -> None:
        watch, key = await shop.create(), str(uuid4())
        low, enough = (reserve_request({watch.id: 1}, key, expected=euros(amount)) for amount in (12.49, 12.5))
        results = await reserve(shop, low, enough, low)
        assert reasons(results) == ["PRICE_CHANGED", "", ""]
        assert results[1].reservation == results[2].reservation
        assert await shop.stock_of(watch.id) == 9

    async def test_refusals_cost_no_further_rounds(self, shop: ProductShop, rounds: list[int]) -> None:
        watch = await shop.create(stock=100)
        results = await reserve(shop, *(reserve_request({watch.id: 1}, expected=euros(1)) for _ in range(64)))
        assert reasons(results) == ["PRICE_CHANGED"] * 64
        assert rounds == [64]


async def test_price_is_that_after_a_wait(shop: ProductShop) -> None:
    """All parts of the statement have the snapshot from before the wait, but the price is that of the locked row."""
    watch, band = await shop.create(), await shop.create(price=euros(20))
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
        await other.execute("UPDATE product SET price_micros = 15000000")
        dearer = asyncio.create_task(shop.reserve({watch.id: 1}, expected=euros(12.5)))
        cheaper = asyncio.create_task(shop.reserve({band.id: 1}, expected=euros(15)))
        await until_waiting(shop.conninfo, 2)
        await other.commit()
    with refused() as error:
        await dearer
    assert error.metadata["total"] == "15.00"
    held = await cheaper
    assert held.items[0].unit_price == euros(15)
    assert await reservations(shop) == [held.id]


async def test_nobody_pays_more_while_prices_move(shop: ProductShop) -> None:
    """Each customer expects the price that was read just before."""
    watch = await shop.create(stock=10_000)
    stop = asyncio.Event()

    async def reprice() -> None:
        price = 12
        while not stop.is_set():
            price = 25 - price
            await shop.update(watch.id, price=euros(price))

    async def buy(outcomes: Counter[str]) -> None:
        for _ in range(40):
            seen = (await shop.get(watch.id)).price
            try:
                held = await shop.reserve({watch.id: 1}, expected=seen)
            except grpc.aio.AioRpcError as error:
                outcomes[refusal_of(error).reason] += 1
            else:
                outcomes["overcharged" if held.items[0].unit_price.units > seen.units else "reserved"] += 1

    outcomes: Counter[str] = Counter()
    repricing = asyncio.create_task(reprice())
    await asyncio.gather(*(buy(outcomes) for _ in range(8)))
    stop.set()
    await repricing
    assert set(outcomes) == {"reserved", "PRICE_CHANGED"}, "without a refusal, no price has risen in time"
    assert len(await reservations(shop)) == outcomes["reserved"]
