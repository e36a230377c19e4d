"""What the order service reads of all reservations, and which databases belong together."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from shop.product.v1 import stock_pb2

from tests.support.product import UNKNOWN, ProductShop, product_shop, refused

HELD, CONFIRMED = stock_pb2.Reservation.HELD, stock_pb2.Reservation.CONFIRMED


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


class TestExpired:
    async def expired(self, shop: ProductShop, size: int = 0) -> list[str]:
        request = stock_pb2.ListExpiredReservationsRequest(page_size=size)
        return list((await shop.stock.ListExpiredReservations(request)).reservation_ids)

    async def test_expired_holds_are_listed_oldest_first(self, shop: ProductShop) -> None:
        created = await shop.create(stock=10)
        keys = [(await shop.reserve({created.id: 1}, ttl=3600)).id for _ in range(6)]
        async with shop.connection() as connection:
            for index, key in enumerate(keys[:5]):
                await connection.execute(
                    "UPDATE reservation SET expire_time = now() - make_interval(secs => %s) WHERE id = %s",
                    (index + 1, key),
                )
        await shop.confirm(keys[0])
        await shop.release(keys[1])
        assert await self.expired(shop) == [keys[4], keys[3], keys[2]]
        assert await self.expired(shop, 1) == [keys[4]]
        assert await self.expired(shop, 1_000_000) == [keys[4], keys[3], keys[2]]
        assert await shop.stock_of(created.id) == 5

    async def test_pages_have_each_hold_once(self, shop: ProductShop) -> None:
        """Even if holds expired at the same moment."""
        created = await shop.create(stock=10)
        keys = {(await shop.reserve({created.id: 1}, ttl=3600)).id for _ in range(5)}
        async with shop.connection() as connection:
            await connection.execute("UPDATE reservation SET expire_time = now() - interval '1 second'")
        listed: list[str] = []
        request = stock_pb2.ListExpiredReservationsRequest(page_size=2)
        while True:
            response = await shop.stock.ListExpiredReservations(request)
            listed += response.reservation_ids
            if not response.next_page_token:
                break
            request.page_token = response.next_page_token
        assert (set(listed), len(listed)) == (keys, 5)
        request.page_token = "x"
        with refused() as error:
            await shop.stock.ListExpiredReservations(request)
        assert set(error.fields) == {"page_token"}

    async def test_negative_page_size_is_rejected(self, shop: ProductShop) -> None:
        with refused() as error:
            await self.expired(shop, -1)
        assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"page_size"})


class TestComparison:
    """What `order reconcile` reads."""

    async def test_batch_get_returns_existing_reservations(self, shop: ProductShop) -> None:
        created = await shop.create()
        held = await shop.reserve({created.id: 2})
        released = await shop.release(str(uuid4()))
        ids = [held.id, UNKNOWN, released.id]
        response = await shop.stock.BatchGetReservations(stock_pb2.BatchGetReservationsRequest(reservation_ids=ids))
        assert sorted(response.reservations, key=lambda each: ids.index(each.id)) == [held, released]

    async def test_pages_have_each_reservation_once_by_id(self, shop: ProductShop) -> None:
        created = await shop.create()
        reservations = [await shop.reserve({created.id: 1}) for _ in range(7)]
        confirmed = await shop.confirm(reservations[0].id)
        await shop.release(reservations[1].id)
        request = stock_pb2.ListReservationsRequest(states=[CONFIRMED, HELD], page_size=2)
        listed: list[stock_pb2.Reservation] = []
        while True:
            response = await shop.stock.ListReservations(request)
            listed += response.reservations
            if not response.next_page_token:
                break
            assert len(response.reservations) == 2
            request.page_token = response.next_page_token
        assert listed == sorted([confirmed, *reservations[2:]], key=lambda each: each.id)
        everything = await shop.stock.ListReservations(stock_pb2.ListReservationsRequest())
        assert len(everything.reservations) == 7
        with refused() as error:
            await shop.stock.ListReservations(stock_pb2.ListReservationsRequest(page_token=request.page_token))
        assert set(error.fields) == {"page_token"}

    async def test_malformed_requests_are_rejected(self, shop: ProductShop) -> None:
        batch, listing = stock_pb2.BatchGetReservationsRequest, stock_pb2.ListReservationsRequest
        for ids, field in (
            ([], "reservation_ids"),
            (["x"], "reservation_ids[0]"),
            ([UNKNOWN] * 2, "reservation_ids[1]"),
        ):
            with refused() as error:
                await shop.stock.BatchGetReservations(batch(reservation_ids=ids))
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {field})
        for request, field in ((listing(states=[0]), "states[0]"), (listing(page_size=-1), "page_size")):  # type: ignore[list-item]  # malformed
            with refused() as error:
                await shop.stock.ListReservations(request)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {field})


class TestPairing:
    """PairDatabases: the first order database that calls is recorded, until an operator replaces it."""

    async def pair(self, shop: ProductShop, order: str, **fields: Any) -> stock_pb2.DatabasePair:
        return await shop.stock.PairDatabases(stock_pb2.PairDatabasesRequest(order_database_id=order, **fields))

    async def test_first_order_database_is_recorded(self, shop: ProductShop) -> None:
        first, second = str(uuid4()), str(uuid4())
        looked = await self.pair(shop, first, read_only=True)
        assert looked.order_database_id == ""
        await self.pair(shop, second, product_database_id=UNKNOWN)
        assert await self.pair(shop, second, read_only=True) == looked, "it belongs to another product database"
        paired = await self.pair(shop, first, product_database_id=looked.product_database_id)
        assert paired == stock_pb2.DatabasePair(product_database_id=looked.product_database_id, order_database_id=first)
        assert await self.pair(shop, second) == paired
        assert await self.pair(shop, first) == paired
        assert (await self.pair(shop, second, replace=True)).order_database_id == second
        assert (await self.pair(shop, first)).order_database_id == second

    async def test_malformed_ids_are_rejected(self, shop: ProductShop) -> None:
        with refused() as error:
            await self.pair(shop, "x", product_database_id="y")
        assert set(error.fields) == {"order_database_id", "product_database_id"}
