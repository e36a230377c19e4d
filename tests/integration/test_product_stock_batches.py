"""Batches of reservations, confirmations and releases: each request stands or falls as it would alone."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.json_format import MessageToDict
from shop.product.v1 import product_pb2, stock_pb2

from product.stock_store import StockStore
from runtime import server
from runtime.errors import of_status, parse_rpc_error, unavailable
from tests.support.invariants import check_stock
from tests.support.locks import until_waiting
from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refused, reserve_request
from tests.support.requests import max_items

HELD, CONFIRMED, RELEASED = (stock_pb2.Reservation.State.Value(name) for name in ("HELD", "CONFIRMED", "RELEASED"))

Result = stock_pb2.ReservationResult

MAX_BATCH = max_items(stock_pb2.BatchReserveStockRequest, "requests")
MAX_ITEMS = max_items(stock_pb2.ReserveStockRequest, "items")


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    """A running service; whatever a test did with it, no piece is lost or invented."""
    async with product_shop(product_database) as shop:
        yield shop
        async with shop.connection() as connection:
            await check_stock(connection)


async def reserve(shop: ProductShop, *requests: stock_pb2.ReserveStockRequest) -> Sequence[Result]:
    answer = await shop.stock.BatchReserveStock(stock_pb2.BatchReserveStockRequest(requests=requests))
    return answer.results


async def confirm(shop: ProductShop, *ids: str) -> Sequence[Result]:
    request = stock_pb2.BatchConfirmReservationsRequest(reservation_ids=ids)
    return (await shop.stock.BatchConfirmReservations(request)).results


async def release(shop: ProductShop, *ids: str) -> Sequence[Result]:
    request = stock_pb2.BatchReleaseReservationsRequest(reservation_ids=ids)
    return (await shop.stock.BatchReleaseReservations(request)).results


def states(results: Sequence[Result]) -> list[int]:
    assert all(each.HasField("reservation") for each in results), results
    return [each.reservation.state for each in results]


def reasons(results: Sequence[Result]) -> list[str]:
    """The reason of each refusal; empty for a reservation."""
    return [of_status(each.error)[1] if each.HasField("error") else "" for each in results]


async def alone(call: Any) -> dict[str, Any]:
    """The status with which a single call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    _, _, status = parse_rpc_error(caught.value)
    assert (status.code, status.message) == (caught.value.code().value[0], caught.value.details())
    return MessageToDict(status)


async def many_products(shop: ProductShop, number: int) -> list[str]:
    """The ids of so many products, with ten pieces of each and the longest names."""
    first = await shop.create("\u4e2d" * 200, stock=10)
    async with shop.connection() as connection:
        rows = await connection.execute(
            """
            WITH made AS (
                INSERT INTO product (
                    id, name, slug, sku, variant, description, category, currency, price_micros, stock, star, image_uri
                )
                SELECT gen_random_uuid(), name, slug || n, sku || n, variant, description, category, currency,
                    price_micros, stock, star, image_uri
                FROM product CROSS JOIN generate_series(2, %s) AS n
                WHERE id = %s
                RETURNING id, stock
            )
            INSERT INTO stock_adjustment (request_id, product_id, delta) SELECT id, id, stock FROM made
            RETURNING product_id::text
            """,
            (number, first.id),
        )
        return [first.id, *(row[0] for row in await rows.fetchall())]


class TestReserve:
    async def test_all_of_a_batch_are_one_statement(self, shop: ProductShop) -> None:
        first, second = await shop.create("Band", stock=100), await shop.create("Watch", stock=100, price=euros(3))
        requests = [reserve_request({second.id: 2, first.id: 1}, ttl=10 + n) for n in range(20)]
        results = await reserve(shop, *requests)
        assert states(results) == [HELD] * 20
        assert [each.reservation.id for each in results] == [each.reservation_id for each in requests]
        assert [(item.name, item.quantity) for item in results[7].reservation.items] == [("Watch", 2), ("Band", 1)]
        assert results[7].reservation.items[0].unit_price == euros(3)
        assert [await shop.stock_of(each.id) for each in (first, second)] == [80, 60]
        async with shop.connection() as connection:
            rows = await connection.execute(
                "SELECT count(DISTINCT create_time),"
                " array_agg(DISTINCT extract(epoch FROM expire_time - create_time)::int) FROM reservation"
            )
            assert await rows.fetchall() == [(1, list(range(10, 30)))]

    async def test_each_refusal_is_that_of_the_single_call(self, shop: ProductShop) -> None:
        """And none takes another one with it."""
        dollars = euros(3)
        dollars.currency_code = "USD"
        plenty, few, gone = await shop.create(stock=100), await shop.create(stock=2), await shop.create()
        foreign = await shop.create(price=dollars)
        await shop.products.DeleteProduct(product_pb2.DeleteProductRequest(id=gone.id))
        there = await shop.reserve({plenty.id: 1})
        bad = [
            reserve_request({plenty.id: 1, few.id: 3}),
            reserve_request({plenty.id: 1, gone.id: 1}),
            reserve_request({plenty.id: 1, UNKNOWN: 1}),
            reserve_request({plenty.id: 1, foreign.id: 1}),
            reserve_request({plenty.id: 7}, there.id),
            reserve_request({plenty.id: 0}, "x"),
            reserve_request({}),
            reserve_request({plenty.id: 2**31 - 1}),
        ]
        requests = [each for refusal in bad for each in (refusal, reserve_request({plenty.id: 1}))]
        results = await reserve(shop, *requests)
        assert states(results[1::2]) == [HELD] * len(bad)
        assert reasons(results[::2]) == [
            *("INSUFFICIENT_STOCK", "PRODUCT_DELETED", "PRODUCT_NOT_FOUND", "CURRENCY_MISMATCH"),
            *("RESERVATION_MISMATCH", "", "", "INSUFFICIENT_STOCK"),
        ]
        assert await shop.stock_of(plenty.id) == 99 - len(bad)
        for message, result in list(zip(bad, results[::2], strict=True))[:-1]:
            assert MessageToDict(result.error) == await alone(shop.stock.ReserveStock(message))

    async def test_a_replay_and_a_tombstone_are_answered_as_they_are(self, shop: ProductShop) -> None:
        created = await shop.create(stock=3)
        held, confirmed, released = [await shop.reserve({created.id: 1}) for _ in range(3)]
        confirmed = await shop.confirm(confirmed.id)
        released = await shop.release(released.id)
        unknown = await shop.release(str(uuid4()))
        before = [held, confirmed, released, unknown]
        last, none = reserve_request({created.id: 1}), reserve_request({created.id: 1})
        results = await reserve(shop, *(reserve_request({created.id: 1}, each.id) for each in before), last, none)
        assert [each.reservation for each in results[:4]] == before
        assert states(results[4:5]) == [HELD], "what is answered already takes no stock"
        assert reasons(results[5:]) == ["INSUFFICIENT_STOCK"]

    async def test_an_id_that_comes_twice_is_reserved_once(self, shop: ProductShop) -> None:
        created = await shop.create(stock=10)
        key = str(uuid4())
        same, other = reserve_request({created.id: 2}, key), reserve_request({created.id: 3}, key)
        results = await reserve(shop, same, same, other, reserve_request({created.id: 1}))
        assert results[0].reservation == results[1].reservation
        assert reasons(results) == ["", "", "RESERVATION_MISMATCH", ""]
        assert await shop.stock_of(created.id) == 7

    async def test_scarce_stock_goes_to_those_who_come_first(self, shop: ProductShop) -> None:
        """What a refused one would have taken is not lost for those behind it."""
        scarce, none = await shop.create("Watch", stock=5), await shop.create(stock=0)
        wanted = [{scarce.id: 4, none.id: 1}, {scarce.id: 3}, {scarce.id: 3}, {scarce.id: 1}, {scarce.id: 1}]
        results = await reserve(shop, *map(reserve_request, wanted), reserve_request({scarce.id: 1}))
        assert reasons(results) == ["INSUFFICIENT_STOCK", "", "INSUFFICIENT_STOCK", "", "", "INSUFFICIENT_STOCK"]
        assert results[2].error.message == '3 of "Watch" were asked for, but only 2 are left'
        assert results[5].error.message == '"Watch" is sold out'
        assert await shop.stock_of(scarce.id) == 0

    async def test_a_sold_out_product_costs_two_rounds_for_all(
        self, shop: ProductShop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds: list[int] = []
        original = StockStore.reserve

        async def counted(self: StockStore, holds: Any) -> Any:
            rounds.append(len(holds))
            return await original(self, holds)

        monkeypatch.setattr(StockStore, "reserve", counted)
        created = await shop.create(stock=10)
        results = await reserve(shop, *(reserve_request({created.id: 1}) for _ in range(64)))
        assert reasons(results) == [""] * 10 + ["INSUFFICIENT_STOCK"] * 54
        assert rounds == [64, 54]

    async def test_the_largest_batch_is_one_message_and_soon_done(self, shop: ProductShop) -> None:
        """However often its statement ran before: the plan that it keeps must not be one for few items."""
        few = await shop.create()
        for _ in range(12):
            (held,) = await reserve(shop, reserve_request({few.id: 1}))
            await confirm(shop, held.reservation.id)
            await release(shop, held.reservation.id)
        ids = await many_products(shop, MAX_BATCH * MAX_ITEMS)
        requests = [
            reserve_request(dict.fromkeys(ids[start : start + MAX_ITEMS], 1)) for start in range(0, len(ids), MAX_ITEMS)
        ]
        largest = [reserve_request({str(uuid4()): 2**31 - 1 for _ in range(MAX_ITEMS)}, ttl=3599.999999999)] * 64
        most = dict(server.OPTIONS)["grpc.max_receive_message_length"]
        assert stock_pb2.BatchReserveStockRequest(requests=largest).ByteSize() < most
        began = time.monotonic()
        results = await reserve(shop, *requests)
        assert states(results) == [HELD] * len(requests)
        keys = [each.reservation.id for each in results]
        assert states(await confirm(shop, *keys)) == [CONFIRMED] * len(requests)
        assert states(await release(shop, *keys)) == [RELEASED] * len(requests)
        assert time.monotonic() - began < 3
        together = [reserve_request(dict.fromkeys(ids[:MAX_ITEMS], 1)) for _ in range(len(requests))]
        assert reasons(await reserve(shop, *together)) == [""] * 10 + ["INSUFFICIENT_STOCK"] * 54


class TestConfirmAndRelease:
    async def test_each_is_answered_as_alone(self, shop: ProductShop) -> None:
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
            assert MessageToDict(result.error) == await alone(shop.confirm(key))
        assert await shop.stock_of(created.id) == 7

    async def test_stock_comes_back_once_and_summed_by_product(self, shop: ProductShop) -> None:
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
        assert MessageToDict(results[7].error) == await alone(shop.release("x"))
        assert [await shop.stock_of(each.id) for each in (first, second)] == [100, 100]
        assert [each.reservation for each in (await release(shop, *ids))[:-1]] == [
            each.reservation for each in results[:-1]
        ]
        late = await reserve(shop, reserve_request({first.id: 1}, unknown))
        assert late[0].reservation == results[5].reservation
        assert await shop.stock_of(first.id) == 100

    async def test_a_release_that_meets_a_reservation_on_its_way_tries_again(self, shop: ProductShop) -> None:
        """Its statement began before the reservation was there, and so has not locked its product."""
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


@pytest.mark.parametrize("call", [reserve, confirm, release])
async def test_empty_and_too_large_batches_are_refused(shop: ProductShop, call: Any) -> None:
    one = reserve_request({UNKNOWN: 1}) if call is reserve else str(uuid4())
    field = "requests" if call is reserve else "reservation_ids"
    for number in (0, 65):
        with refused() as error:
            await call(shop, *[one] * number)
        assert (error.what.code, error.what.fields) == (
            "INVALID_ARGUMENT",
            {field: f"must have 1 to 64 elements, not {number}"},
        )
    assert len(await call(shop, *[one] * 64)) == 64


async def test_what_one_request_breaks_fails_that_one_alone(
    shop: ProductShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a constraint that it alone meets."""
    good, bad = await shop.create(stock=10), await shop.create(stock=10)
    holds = [await shop.reserve({good.id: 1}), await shop.reserve({bad.id: 1}), await shop.reserve({good.id: 1})]
    async with shop.connection() as connection:
        await connection.execute(
            f"ALTER TABLE reservation ADD CONSTRAINT one CHECK (state <> 'CONFIRMED' OR id <> '{holds[1].id}')"
        )
        await connection.execute(f"ALTER TABLE product ADD CONSTRAINT two CHECK (id <> '{bad.id}' OR stock = 9)")
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
    """What is known by then stays known. Where nothing is, the call fails, so that whoever called may try again."""

    async def test_between_the_reservations_and_the_look_for_the_others(
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
            assert error.what.code == "UNAVAILABLE"
        first, second = await confirm(shop, one.reservation_id, held.id)
        assert first.reservation.state == CONFIRMED
        assert second.error.code == grpc.StatusCode.UNAVAILABLE.value[0]

    async def test_between_two_rounds(self, shop: ProductShop, monkeypatch: pytest.MonkeyPatch) -> None:
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
    raise unavailable("the database does not answer")


async def test_a_reservation_that_changes_again_and_again_may_be_tried_later(
    shop: ProductShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unchanged(*_: Any) -> Any:
        return []

    created = await shop.create()
    held, gone = await shop.reserve({created.id: 1}), await shop.reserve({created.id: 1})
    await shop.release(gone.id)
    monkeypatch.setattr(StockStore, "release", unchanged)
    first, second = await release(shop, held.id, gone.id)
    assert (first.error.code, first.error.message) == (
        grpc.StatusCode.UNAVAILABLE.value[0],
        "the reservation is being changed",
    )
    assert second.reservation.state == RELEASED


async def test_a_statement_that_takes_too_long_fails_the_call(product_database: str) -> None:
    """Nothing is known of any of its requests, so the call itself fails; nothing was written."""
    async with product_shop(product_database, DATABASE_TIMEOUT="1") as shop:
        created = await shop.create(stock=5)
        async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
            await other.execute("UPDATE product SET stock = stock")
            with refused() as error:
                await reserve(shop, *(reserve_request({created.id: 1}) for _ in range(3)))
            assert (error.what.code, error.what.reason) == ("DEADLINE_EXCEEDED", "QUERY_TIMEOUT")
        assert await shop.stock_of(created.id) == 5


async def test_each_reservation_is_logged(shop: ProductShop, caplog: pytest.LogCaptureFixture) -> None:
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
