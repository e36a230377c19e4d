"""Stock is adjusted, reserved, confirmed and released, each once, and no piece is lost."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from google.protobuf import duration_pb2
from shop.product.v1 import product_pb2, stock_pb2

from tests.support.product import UNKNOWN, ProductShop, balanced_shop, euros, refused, reserve_request

HELD, CONFIRMED, RELEASED = (stock_pb2.Reservation.State.Value(name) for name in ("HELD", "CONFIRMED", "RELEASED"))


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with balanced_shop(product_database, CALLER_HEADER="x-caller") as shop:
        yield shop


class TestAdjust:
    async def test_delta_is_added_to_the_stock(self, shop: ProductShop) -> None:
        created = await shop.create(stock=10)
        assert (await shop.adjust(created.id, 5)).stock == 15
        after = await shop.adjust(created.id, -15)
        assert (after.stock, after.etag) == (0, created.etag)

    async def test_request_id_changes_the_stock_once(self, shop: ProductShop) -> None:
        created = await shop.create(stock=10)
        key = str(uuid4())
        responses = await asyncio.gather(*(shop.adjust(created.id, 3, key) for _ in range(8)))
        assert {response.stock for response in responses} == {13}
        assert (await shop.adjust(created.id, 3, idempotency_key=key)).stock == 13, "the header is the same key"
        await shop.delete(created.id)
        assert (await shop.adjust(created.id, 3, key)).HasField("delete_time"), "a replay is answered all the same"

    async def test_each_call_without_a_key_counts(self, shop: ProductShop) -> None:
        created = await shop.create(stock=0)
        await asyncio.gather(*(shop.adjust(created.id, 1) for _ in range(20)))
        assert await shop.stock_of(created.id) == 20

    async def test_callers_may_use_the_same_key(self, shop: ProductShop) -> None:
        created = await shop.create(stock=0)
        key = str(uuid4())
        for name in ("ann", "bob", "ann"):
            await shop.adjust(created.id, 1, key, x_caller=name)
        assert await shop.stock_of(created.id) == 2

    async def test_key_with_another_request_is_rejected(self, shop: ProductShop) -> None:
        first, second = await shop.create(), await shop.create()
        key = str(uuid4())
        await shop.adjust(first.id, 1, key)
        for product_id, delta in ((first.id, 2), (second.id, 1), (UNKNOWN, 1)):
            with refused() as error:
                await shop.adjust(product_id, delta, key)
            assert (error.code, error.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")
        assert await shop.stock_of(first.id) == 11
        assert await shop.stock_of(second.id) == 10

    @pytest.mark.parametrize(("delta", "left"), [(-11, 10), (-(2**63), 10)])
    async def test_negative_stock_is_rejected(self, shop: ProductShop, delta: int, left: int) -> None:
        created = await shop.create(stock=10)
        with refused() as error:
            await shop.adjust(created.id, delta)
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
        assert error.metadata == {"product_id": created.id, "requested": str(-delta), "available": str(left)}

    @pytest.mark.parametrize("delta", [99_999_991, 2**63 - 1])
    async def test_stock_above_the_limit_is_rejected(self, shop: ProductShop, delta: int) -> None:
        created = await shop.create(stock=10)
        with refused() as error:
            await shop.adjust(created.id, delta)
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "STOCK_LIMIT")
        assert (await shop.adjust(created.id, 99_999_990)).stock == 100_000_000

    async def test_key_of_a_rejected_call_can_be_reused(self, shop: ProductShop) -> None:
        """Nothing was written, so the same request may succeed later."""
        created = await shop.create(stock=1)
        key = str(uuid4())
        with refused():
            await shop.adjust(created.id, -2, key)
        await shop.adjust(created.id, 1)
        assert (await shop.adjust(created.id, -2, key)).stock == 0

    async def test_stale_etag_aborts_unless_replayed(self, shop: ProductShop) -> None:
        """The etag does not depend on the stock: an adjustment keeps it."""
        created = await shop.create(stock=10)
        key, etag = str(uuid4()), f'"{created.etag}"'
        for _ in range(2):
            assert (await shop.adjust(created.id, 1, key, if_match=etag)).stock == 11
        with refused() as error:
            request = product_pb2.AdjustStockRequest(id=created.id, delta=1, etag="2")
            await shop.products.AdjustStock(request)
        assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
        assert (await shop.adjust(created.id, 1, key, if_match='"2"')).stock == 11

    async def test_unknown_or_deleted_product_is_rejected(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.adjust(UNKNOWN, 1)
        assert (error.code, error.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        created = await shop.create()
        await shop.delete(created.id)
        with refused() as error:
            await shop.adjust(created.id, 1)
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PRODUCT_DELETED")

    async def test_malformed_requests_are_rejected(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.adjust("x", 0)
        assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"id", "delta"})
        with refused() as error:
            await shop.adjust(UNKNOWN, 1, "x")
        assert set(error.fields) == {"request_id"}
        with refused() as error:
            await shop.adjust(UNKNOWN, 1, str(uuid4()), idempotency_key=str(uuid4()))
        assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"request_id"})


class TestReserve:
    async def test_reservation_has_items_in_the_given_order(self, shop: ProductShop) -> None:
        ids = [(await shop.create(f"Watch {index}", price=euros(index))).id for index in range(4)]
        key = str(uuid4())
        held = await shop.reserve({ids[2]: 1, ids[0]: 2, ids[3]: 10}, key, ttl=90.5)
        assert (held.id, held.state) == (key, HELD)
        assert [(item.product_id, item.quantity, item.name) for item in held.items] == [
            (ids[2], 1, "Watch 2"),
            (ids[0], 2, "Watch 0"),
            (ids[3], 10, "Watch 3"),
        ]
        assert held.items[0].unit_price == euros(2)
        assert [await shop.stock_of(each) for each in ids] == [8, 10, 9, 0]
        async with shop.connection() as connection:
            rows = await connection.execute(
                "SELECT extract(epoch FROM expire_time - create_time)::float FROM reservation"
            )
            assert await rows.fetchall() == [(90.5,)]

    async def test_repeated_reserve_is_idempotent(self, shop: ProductShop) -> None:
        """Even if the price has changed, the last piece is gone, and the items come in another order."""
        first, second = await shop.create(stock=1), await shop.create(stock=5)
        key = str(uuid4())
        held = await shop.reserve({first.id: 1, second.id: 2}, key)
        await shop.products.UpdateProduct(
            product_pb2.UpdateProductRequest(product=product_pb2.Product(id=first.id, name="New", price=euros(99)))
        )
        assert await shop.reserve({second.id: 2, first.id: 1}, key) == held
        await shop.delete(second.id)
        assert await shop.reserve({first.id: 1, second.id: 2}, key) == held
        assert await shop.stock_of(second.id) == 3

    async def test_concurrent_reserves_with_one_id_take_once(self, shop: ProductShop) -> None:
        """All get the same response, even those that find too little stock because of the first."""
        created = await shop.create(stock=3)
        key = str(uuid4())
        responses = await asyncio.gather(*(shop.reserve({created.id: 2}, key) for _ in range(16)))
        assert all(response == responses[0] for response in responses)
        assert await shop.stock_of(created.id) == 1

    async def test_id_with_other_items_is_rejected(self, shop: ProductShop) -> None:
        first, second = await shop.create(), await shop.create()
        key = str(uuid4())
        await shop.reserve({first.id: 1}, key)
        for items in ({first.id: 2}, {second.id: 1}, {first.id: 1, second.id: 1}, {UNKNOWN: 1}):
            with refused() as error:
                await shop.reserve(items, key)
            assert (error.code, error.reason) == ("ALREADY_EXISTS", "RESERVATION_MISMATCH")
        assert await shop.stock_of(first.id) == 9

    async def test_unknown_product_is_named(self, shop: ProductShop) -> None:
        created = await shop.create()
        with refused() as error:
            await shop.reserve({created.id: 1, UNKNOWN: 1})
        assert (error.code, error.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        assert error.metadata == {"product_id": UNKNOWN}
        assert set(error.fields) == {"items[1].product_id"}
        assert await shop.stock_of(created.id) == 10

    async def test_deleted_product_is_named(self, shop: ProductShop) -> None:
        live, gone = await shop.create(), await shop.create("Old watch")
        await shop.delete(gone.id)
        with refused() as error:
            await shop.reserve({live.id: 1, gone.id: 1})
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PRODUCT_DELETED")
        assert error.metadata == {"product_id": gone.id}
        assert "Old watch" in error.message
        assert await shop.stock_of(live.id) == 10

    async def test_shortage_is_in_message_and_metadata(self, shop: ProductShop) -> None:
        plenty = await shop.create("Band", stock=100)
        few, none = await shop.create("Watch", stock=2), await shop.create("Clock", stock=0)
        with refused() as error:
            await shop.reserve({plenty.id: 1, few.id: 3, none.id: 1})
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
        assert error.metadata == {"product_id": few.id, "requested": "3", "available": "2"}
        assert error.message == 'insufficient stock of "Watch": 3 requested, 2 available; "Clock" is sold out'
        assert await shop.stock_of(plenty.id) == 100

    async def test_items_of_two_currencies_are_rejected(self, shop: ProductShop) -> None:
        dollars = euros(3)
        dollars.currency_code = "USD"
        first, second = await shop.create(), await shop.create(price=dollars)
        with refused() as error:
            await shop.reserve({first.id: 1, second.id: 1})
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CURRENCY_MISMATCH")
        assert await shop.stock_of(first.id) == 10

    async def test_malformed_requests_are_rejected(self, shop: ProductShop) -> None:
        item = stock_pb2.StockItem
        cases = [
            (reserve_request({}), {"items"}),
            (reserve_request({UNKNOWN: 0}), {"items[0].quantity"}),
            (reserve_request({UNKNOWN: -1, "x": 1}), {"items[0].quantity", "items[1].product_id"}),
            (reserve_request({UNKNOWN: 1}, "x"), {"reservation_id"}),
            (reserve_request({UNKNOWN: 1}, ttl=0.5), {"ttl"}),
            (reserve_request({UNKNOWN: 1}, ttl=3600.5), {"ttl"}),
            (reserve_request({str(uuid4()): 1 for _ in range(51)}), {"items"}),
        ]
        twice = reserve_request({UNKNOWN: 1})
        twice.items.append(item(product_id=UNKNOWN, quantity=1))
        endless = reserve_request({UNKNOWN: 1})
        endless.ttl.CopyFrom(duration_pb2.Duration(seconds=2**62))
        cases += [(twice, {"items[1].product_id"}), (endless, {"ttl"})]
        cases += [(stock_pb2.ReserveStockRequest(), {"reservation_id", "items", "ttl"})]
        for request, fields in cases:
            with refused() as error:
                await shop.stock.ReserveStock(request)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", fields)

    async def test_largest_quantity_is_a_shortage(self, shop: ProductShop) -> None:
        created = await shop.create()
        with refused() as error:
            await shop.reserve({created.id: 2**31 - 1})
        assert error.reason == "INSUFFICIENT_STOCK"


class TestConfirmAndRelease:
    async def test_repeated_confirm_is_idempotent(self, shop: ProductShop) -> None:
        created = await shop.create()
        held = await shop.reserve({created.id: 4})
        confirmed = await shop.confirm(held.id)
        assert (confirmed.state, list(confirmed.items)) == (CONFIRMED, list(held.items))
        assert await shop.confirm(held.id) == confirmed
        assert await shop.reserve({created.id: 4}, held.id) == confirmed
        assert await shop.stock_of(created.id) == 6

    @pytest.mark.parametrize("confirmed", [False, True])
    async def test_release_returns_the_stock_once(self, shop: ProductShop, confirmed: bool) -> None:
        first, second = await shop.create(), await shop.create()
        held = await shop.reserve({first.id: 4, second.id: 1})
        if confirmed:
            await shop.confirm(held.id)
        responses = await asyncio.gather(*(shop.release(held.id) for _ in range(8)))
        assert {response.state for response in responses} == {RELEASED}
        assert list(responses[0].items) == list(held.items)
        assert [await shop.stock_of(each.id) for each in (first, second)] == [10, 10]

    async def test_released_is_final(self, shop: ProductShop) -> None:
        created = await shop.create()
        held = await shop.reserve({created.id: 4})
        released = await shop.release(held.id)
        assert await shop.confirm(held.id) == released
        assert await shop.reserve({created.id: 4}, held.id) == released
        with refused() as error:
            await shop.reserve({created.id: 5}, held.id)
        assert error.reason == "RESERVATION_MISMATCH"
        assert await shop.stock_of(created.id) == 10

    async def test_release_before_reserve_prevents_the_hold(self, shop: ProductShop) -> None:
        created = await shop.create()
        key = str(uuid4())
        released = await shop.release(key)
        assert (released.id, released.state, len(released.items)) == (key, RELEASED, 0)
        assert await shop.release(key) == released
        assert await shop.reserve({created.id: 1}, key) == released
        assert await shop.confirm(key) == released
        assert await shop.stock_of(created.id) == 10

    async def test_release_returns_stock_of_a_deleted_product(self, shop: ProductShop) -> None:
        created = await shop.create()
        held = await shop.reserve({created.id: 4})
        await shop.delete(created.id)
        await shop.release(held.id)
        assert await shop.stock_of(created.id) == 10

    async def test_release_may_exceed_the_stock_limit(self, shop: ProductShop) -> None:
        """The limit is for what people enter. The cancellation of an order must never fail because of it."""
        created = await shop.create(stock=100_000_000)
        held = await shop.reserve({created.id: 10})
        await shop.adjust(created.id, 10)
        await shop.release(held.id)
        assert await shop.stock_of(created.id) == 100_000_010
        with refused() as error:
            await shop.adjust(created.id, 1)
        assert error.reason == "STOCK_LIMIT"
        assert (await shop.adjust(created.id, -3)).stock == 100_000_007, "it can be lowered bit by bit"
        with refused() as error:
            await shop.adjust(created.id, 1)
        assert error.reason == "STOCK_LIMIT"
        assert (await shop.adjust(created.id, -7)).stock == 100_000_000

    async def test_confirm_of_unknown_id_is_not_found(self, shop: ProductShop) -> None:
        with refused() as error:
            await shop.confirm(UNKNOWN)
        assert (error.code, error.reason) == ("NOT_FOUND", "RESERVATION_NOT_FOUND")

    async def test_malformed_ids_are_rejected(self, shop: ProductShop) -> None:
        for call in (shop.confirm, shop.release):
            with refused() as error:
                await call("x")
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"reservation_id"})
