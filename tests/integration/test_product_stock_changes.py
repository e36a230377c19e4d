"""Batches of confirmations and releases, and what a batch does where the database fails."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.json_format import MessageToDict

from product.stock_store import StockStore
from runtime.errors import unavailable
from tests.support.locks import until_waiting
from tests.support.product import ProductShop, balanced_shop, product_shop, refused, reserve_request
from tests.support.stock_batches import (
    CONFIRMED,
    HELD,
    RELEASED,
    confirm,
    release,
    reserve,
    states,
    status_of_call,
)


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with balanced_shop(product_database) as shop:
        yield shop


class TestConfirmAndRelease:
    async def test_confirm_results_equal_single_calls(self, shop: ProductShop) -> None:
        created = await shop.create(stock=10)
        held, other, settled, gone = [await shop.reserve({created.id: 1}) for _ in range(4)]
        await shop.confirm(settled.id)
        await shop.release(gone.id)
        unknown = str(uuid4())
        results = await confirm(shop, held.id, unknown, settled.id, gone.id, "x", other.id, held.id)
        assert states([*results[:1], *results[2:4], *results[5:]]) == [
            CONFIRMED,
            CONFIRMED,
            RELEASED,
            CONFIRMED,
            CONFIRMED,
        ]
        assert list(results[0].reservation.items) == list(held.items)
        for key, result in ((unknown, results[1]), ("x", results[4])):
            assert MessageToDict(result.error) == await status_of_call(shop.confirm(key))
        assert await shop.stock_of(created.id) == 7

    async def test_release_returns_each_stock_once(self, shop: ProductShop) -> None:
        first, second = await shop.create(stock=100), await shop.create(stock=100)
        holds = [await shop.reserve({second.id: n, first.id: 1}) for n in range(1, 6)]
        await shop.confirm(holds[0].id)
        gone = await shop.release(holds[4].id)
        unknown = str(uuid4())
        ids = [*(each.id for each in holds), unknown, holds[1].id, "x"]
        results = await release(shop, *ids)
        assert states(results[:-1]) == [RELEASED] * 7
        assert list(results[1].reservation.items) == list(holds[1].items)
        assert results[4].reservation == gone
        assert list(results[5].reservation.items) == []
        assert MessageToDict(results[7].error) == await status_of_call(shop.release("x"))
        assert [await shop.stock_of(each.id) for each in (first, second)] == [100, 100]
        assert [each.reservation for each in (await release(shop, *ids))[:-1]] == [
            each.reservation for each in results[:-1]
        ]
        late = await reserve(shop, reserve_request({first.id: 1}, unknown))
        assert late[0].reservation == results[5].reservation
        assert await shop.stock_of(first.id) == 100

    async def test_release_retries_a_concurrent_reservation(self, shop: ProductShop) -> None:
        """The statement began before the reservation existed, so it has not locked the product."""
        created = await shop.create(stock=10)
        held = await shop.reserve({created.id: 1})
        key = str(uuid4())
        async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
            await other.execute("UPDATE product SET stock = stock - 2")
            await other.execute(
                "INSERT INTO reservation (id, state, items, expire_time)"
                " SELECT %s, 'HELD', jsonb_set(items, '{0,quantity}', '2'), expire_time FROM reservation",
                (key,),
            )
            # `held` has it wait for the product, `key` for the reservation that nobody sees yet.
            releasing = asyncio.create_task(release(shop, held.id, key))
            await until_waiting(shop.conninfo, 1)
            await other.commit()
        assert states(await releasing) == [RELEASED, RELEASED]
        assert await shop.stock_of(created.id) == 10


async def test_failing_request_fails_alone(
    shop: ProductShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here it violates a constraint that only it violates."""
    good, bad = await shop.create(stock=10), await shop.create(stock=10)
    holds = [await shop.reserve({good.id: 1}), await shop.reserve({bad.id: 1}), await shop.reserve({good.id: 1})]
    async with shop.connection() as connection:
        one = f"ALTER TABLE reservation ADD CONSTRAINT one CHECK (state <> 'CONFIRMED' OR id <> '{holds[1].id}')"
        two = f"ALTER TABLE product ADD CONSTRAINT two CHECK (id <> '{bad.id}' OR stock = 9)"
        await connection.execute(one.encode())
        await connection.execute(two.encode())
    results = await confirm(shop, *(each.id for each in holds))
    assert states([results[0], results[2]]) == [CONFIRMED, CONFIRMED]
    assert (results[1].error.message, len(results[1].error.details)) == ("internal error", 0)
    results = await reserve(shop, *(reserve_request({each.id: 1}) for each in (bad, good, good)))
    assert states(results[1:]) == [HELD, HELD]
    assert results[0].error.code == grpc.StatusCode.INTERNAL.value[0]
    results = await release(shop, *(each.id for each in holds))
    assert states([results[0], results[2]]) == [RELEASED, RELEASED]
    assert results[1].error.message == "internal error"
    assert await shop.stock_of(good.id) == 8
    assert "ReleaseReservation in a batch failed" in caplog.text


class TestDatabaseThatGoesAway:
    """Outcomes that are known are returned. If none is known, the call fails, and its client can retry."""

    async def test_database_lost_after_the_first_statement(
        self, shop: ProductShop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created = await shop.create(stock=1)
        held = await shop.reserve({created.id: 1})
        await shop.adjust(created.id, 1)
        monkeypatch.setattr(StockStore, "batch_get", _away)
        one, again = reserve_request({created.id: 1}), reserve_request({created.id: 1}, held.id)
        first, second = await reserve(shop, one, again)
        assert first.reservation.state == HELD
        assert second.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        for call in (reserve(shop, again), release(shop, (await release(shop, held.id))[0].reservation.id)):
            with refused() as error:
                await call
            assert error.code == "UNAVAILABLE"
        first, second = await confirm(shop, one.reservation_id, held.id)
        assert first.reservation.state == CONFIRMED
        assert second.error.code == grpc.StatusCode.UNAVAILABLE.value[0]

    async def test_database_lost_between_rounds(self, shop: ProductShop, monkeypatch: pytest.MonkeyPatch) -> None:
        original = StockStore.reserve

        async def once(self: StockStore, holds: Any) -> Any:
            monkeypatch.setattr(StockStore, "reserve", _away)
            return await original(self, holds)

        monkeypatch.setattr(StockStore, "reserve", once)
        created = await shop.create(stock=3)
        results = await reserve(shop, *(reserve_request({created.id: 2}) for _ in range(3)))
        assert states(results[:1]) == [HELD]
        assert {each.error.code for each in results[1:]} == {grpc.StatusCode.UNAVAILABLE.value[0]}


async def _away(*_: Any) -> Any:
    raise unavailable("the database is unavailable")


async def test_endless_conflict_is_unavailable(shop: ProductShop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unchanged(*_: Any) -> Any:
        return []

    created = await shop.create()
    held, gone = await shop.reserve({created.id: 1}), await shop.reserve({created.id: 1})
    await shop.release(gone.id)
    monkeypatch.setattr(StockStore, "release", unchanged)
    first, second = await release(shop, held.id, gone.id)
    assert (first.error.code, first.error.message) == (
        grpc.StatusCode.UNAVAILABLE.value[0],
        "other requests are changing the reservation; try again",
    )
    assert second.reservation.state == RELEASED


async def test_statement_timeout_fails_the_whole_call(product_database: str) -> None:
    """No outcome is known, so the call itself fails. Nothing was written."""
    async with product_shop(product_database, DATABASE_TIMEOUT="1") as shop:
        created = await shop.create(stock=5)
        async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
            await other.execute("UPDATE product SET stock = stock")
            with refused() as error:
                await reserve(shop, *(reserve_request({created.id: 1}) for _ in range(3)))
            assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "QUERY_TIMEOUT")
        assert await shop.stock_of(created.id) == 5


async def test_each_batch_is_logged_with_its_ids(shop: ProductShop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    created = await shop.create(stock=2)
    requests = [reserve_request({created.id: 1}) for _ in range(3)]
    await reserve(shop, *requests)
    ids = [each.reservation_id for each in requests]
    await confirm(shop, *ids[:2])
    await release(shop, *ids[:2])
    for text in ("stock reserved", "reservation confirmed", "reservation released"):
        logged = [vars(each)["reservation_ids"] for each in caplog.records if each.getMessage() == text]
        assert [sorted(each) for each in logged] == [sorted(ids[:2])], text
    assert caplog.text.count("ReserveStock in a batch: FAILED_PRECONDITION") == 1
