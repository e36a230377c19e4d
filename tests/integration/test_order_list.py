"""Lists of orders: newest first, filtered, page by page; tombstones are never shown."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from shop.order.v1 import order_pb2

from tests.support.database import TestServer
from tests.support.order import FakeStock, OrderShop, order_shop
from tests.support.product import refused


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


async def page(shop: OrderShop, **fields: Any) -> order_pb2.ListOrdersResponse:
    return await shop.orders.ListOrders(order_pb2.ListOrdersRequest(**fields))


async def ids(shop: OrderShop, **fields: Any) -> list[str]:
    """Returns the ids of all orders of a query, page by page."""
    found: list[str] = []
    token = ""
    while True:
        answer = await page(shop, page_token=token, **fields)
        found += [order.id for order in answer.orders]
        token = answer.next_page_token
        if not token:
            return found


async def test_pages_list_each_order_once_newest_first(shop: OrderShop) -> None:
    made = [(await shop.create()).id for _ in range(7)]
    async with shop.connection() as connection:  # three of one moment: the id decides
        await connection.execute(
            "UPDATE orders SET create_time = '2026-01-01' WHERE id = ANY (%s::uuid[])", (made[:3],)
        )
    expected = [*made[:2:-1], *sorted(made[:3], reverse=True)]
    assert await ids(shop) == expected
    for size in (1, 2, 3, 7):
        assert await ids(shop, page_size=size) == expected


async def test_new_order_does_not_shift_pages(shop: OrderShop) -> None:
    made = [(await shop.create()).id for _ in range(4)]
    first = await page(shop, page_size=2)
    await shop.create()
    second = await page(shop, page_size=2, page_token=first.next_page_token)
    assert [order.id for order in (*first.orders, *second.orders)] == made[::-1]
    assert second.next_page_token == ""


async def test_page_size_is_20_by_default_and_at_most_100(shop: OrderShop) -> None:
    async with shop.connection() as connection:
        await connection.execute(
            "INSERT INTO orders (id, number, status)"
            " SELECT gen_random_uuid(), next_order_number(), 'PLACED' FROM generate_series(1, 101)"
        )
    assert len((await page(shop)).orders) == 20
    assert len((await page(shop, page_size=1000)).orders) == 100
    assert len(await ids(shop, page_size=1000)) == 101


async def test_filters_are_combined(shop: OrderShop) -> None:
    ada = await shop.create(customer={"email": "Ada@Example.com"})
    second = await shop.create(customer={"email": "ada@example.com"})
    bob = await shop.create(customer={"email": "bob@example.com"})
    await shop.move("PROCESSED", second.id)
    assert await ids(shop, customer_email="ADA@example.COM", page_size=1) == [second.id, ada.id]
    assert await ids(shop, customer_email="ada@example.com", status="PLACED") == [ada.id]
    assert await ids(shop, status="PLACED", page_size=1) == [bob.id, ada.id]
    assert await ids(shop, number=bob.number) == [bob.id]
    assert await ids(shop, number=bob.number, status="CANCELLED") == []
    assert await ids(shop, customer_email="%@example.com") == []


async def test_email_is_found_in_any_unicode_form(shop: OrderShop) -> None:
    order = await shop.create(customer={"email": "rene\u0301@example.com", "name": "Rene\u0301"})
    assert (order.customer.email, order.customer.name) == ("ren\u00e9@example.com", "Ren\u00e9")
    for email in ("rene\u0301@example.com", "ren\u00e9@example.com"):
        assert await ids(shop, customer_email=email) == [order.id]


async def test_token_of_another_query_is_refused(shop: OrderShop) -> None:
    for _ in range(3):
        await shop.create()
    token = (await page(shop, page_size=1)).next_page_token
    for fields in ({"status": "PLACED"}, {"customer_email": "a@b"}, {"number": "1"}):
        with refused() as error:
            await page(shop, page_size=1, page_token=token, **fields)
        assert set(error.fields) == {"page_token"}


async def test_tombstones_are_hidden(shop: OrderShop) -> None:
    key = str(uuid4())
    async with shop.connection() as connection:
        await connection.execute("INSERT INTO orders (id, status) VALUES (%s, 'EXPIRED')", (key,))
    assert await ids(shop) == []
    for call in (shop.get(key), shop.move("CANCELLED", key)):
        with refused() as error:
            await call
        assert error.reason == "ORDER_NOT_FOUND"
    with refused() as error:
        await anext(aiter(shop.stream(key)))
    assert error.reason == "ORDER_NOT_FOUND"


async def test_email_ignores_case_in_any_locale(postgres: TestServer) -> None:
    with postgres.plain("order") as conninfo:
        async with order_shop(conninfo, FakeStock()) as shop:
            order = await shop.create(customer=order_pb2.Customer(email="\u00c4nne@Example.com"))
            assert await ids(shop, customer_email="\u00e4nne@example.COM") == [order.id]
            async with shop.connection() as connection:
                await connection.execute("SET enable_seqscan = off")
                cursor = await connection.execute(
                    "EXPLAIN SELECT id FROM orders WHERE status <> 'EXPIRED'"
                    " AND lower(customer_email COLLATE pg_c_utf8) = 'x' ORDER BY create_time DESC, id DESC"
                )
                assert "orders_by_email" in str(await cursor.fetchall())


async def test_page_token_ignores_case_of_email(shop: OrderShop) -> None:
    for _ in range(3):
        await shop.create(customer=order_pb2.Customer(email="ada@example.com"))
    first = await page(shop, page_size=2, customer_email="ada@example.com")
    second = await page(shop, page_size=2, customer_email="Ada@Example.com", page_token=first.next_page_token)
    assert len(second.orders) == 1


async def test_lists_have_their_own_connections(order_database: str) -> None:
    """Expensive lists do not delay other calls."""
    async with order_shop(order_database, FakeStock(), SEARCH_POOL_SIZE="1") as shop:
        await shop.create()
        for _ in range(8):
            await shop.orders.ListOrders(order_pb2.ListOrdersRequest(status=order_pb2.Order.PLACED))
        async with shop.connection() as connection:
            rows = await connection.execute(
                "SELECT query LIKE '%ORDER BY %create_time DESC%', count(*) FROM pg_stat_activity"
                " WHERE application_name = 'order search' AND datname = current_database() GROUP BY 1"
            )
            assert await rows.fetchall() == [(True, 1)]
