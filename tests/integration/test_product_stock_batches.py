"""Batches of reservations: each request succeeds or fails as it would alone."""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.json_format import MessageToDict
from shop.product.v1 import product_pb2, stock_pb2

from product.stock_store import StockStore
from runtime import server
from tests.support.product import UNKNOWN, ProductShop, balanced_shop, euros, refused, reserve_request
from tests.support.requests import max_items
from tests.support.stock_batches import (
    CONFIRMED,
    HELD,
    RELEASED,
    confirm,
    reasons,
    release,
    reserve,
    states,
    status_of_call,
)

MAX_BATCH = max_items(stock_pb2.BatchReserveStockRequest, "requests")
MAX_ITEMS = max_items(stock_pb2.ReserveStockRequest, "items")


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with balanced_shop(product_database) as shop:
        yield shop


async def many_products(shop: ProductShop, number: int) -> list[str]:
    """Creates products with ten pieces each and the longest names. Returns their ids."""
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
    async def test_batch_is_one_statement(self, shop: ProductShop) -> None:
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

    async def test_rejections_equal_those_of_single_calls(self, shop: ProductShop) -> None:
        """And none of them makes another one fail."""
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
            assert MessageToDict(result.error) == await status_of_call(shop.stock.ReserveStock(message))

    async def test_existing_reservations_are_returned_as_they_are(self, shop: ProductShop) -> None:
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

    async def test_duplicate_id_is_reserved_once(self, shop: ProductShop) -> None:
        created = await shop.create(stock=10)
        key = str(uuid4())
        same, other = reserve_request({created.id: 2}, key), reserve_request({created.id: 3}, key)
        results = await reserve(shop, same, same, other, reserve_request({created.id: 1}))
        assert results[0].reservation == results[1].reservation
        assert reasons(results) == ["", "", "RESERVATION_MISMATCH", ""]
        assert await shop.stock_of(created.id) == 7

    async def test_scarce_stock_goes_to_the_first_requests(self, shop: ProductShop) -> None:
        """What a rejected request would have taken is left for the requests after it."""
        scarce, none = await shop.create("Watch", stock=5), await shop.create(stock=0)
        wanted = [{scarce.id: 4, none.id: 1}, {scarce.id: 3}, {scarce.id: 3}, {scarce.id: 1}, {scarce.id: 1}]
        results = await reserve(shop, *map(reserve_request, wanted), reserve_request({scarce.id: 1}))
        assert reasons(results) == ["INSUFFICIENT_STOCK", "", "INSUFFICIENT_STOCK", "", "", "INSUFFICIENT_STOCK"]
        assert results[2].error.message == 'insufficient stock of "Watch": 3 requested, 2 available'
        assert results[5].error.message == '"Watch" is sold out'
        assert await shop.stock_of(scarce.id) == 0

    async def test_sold_out_product_takes_two_rounds(self, shop: ProductShop, monkeypatch: pytest.MonkeyPatch) -> None:
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

    async def test_largest_batch_fits_and_is_quick(self, shop: ProductShop) -> None:
        """Even if its statement ran often before: PostgreSQL must not keep a plan for few items."""
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


@pytest.mark.parametrize("call", [reserve, confirm, release])
async def test_empty_and_too_large_batches_are_rejected(shop: ProductShop, call: Any) -> None:
    one = reserve_request({UNKNOWN: 1}) if call is reserve else str(uuid4())
    field = "requests" if call is reserve else "reservation_ids"
    for number in (0, 65):
        with refused() as error:
            await call(shop, *[one] * number)
        assert (error.code, error.fields) == ("INVALID_ARGUMENT", {field: f"must have 1 to 64 elements, not {number}"})
    assert len(await call(shop, *[one] * 64)) == 64
