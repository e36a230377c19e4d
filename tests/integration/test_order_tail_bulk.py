"""Very many events at once: a bulk change, by an operator or a restore, in one transaction."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from order.domain import StatusEvent
from order.live import cursor
from order.live.cursor import EventCursor
from order.live.tailer import Tailer
from runtime.subscriptions import Subscription
from runtime.topics import Topics
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop
from tests.support.watching import INSERT, Watching, cut_tailers

MANY = 12_000
"""Events of one transaction; far more than a look reads."""


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


async def insert_many(connection: psycopg.AsyncConnection[Any], number: int = MANY) -> None:
    await connection.execute(
        "WITH placed AS (INSERT INTO orders (id, number, status)"
        " SELECT gen_random_uuid(), next_order_number(), 'PLACED' FROM generate_series(1, %s) RETURNING id)"
        " INSERT INTO order_event (order_id, version, status, create_time)"
        " SELECT id, 1, 'PLACED', now() FROM placed",
        (number,),
    )


async def test_poll_reads_bounded_number_of_events(order_database: str) -> None:
    """Memory does not grow with the transaction, and the next look does not find it again."""
    topics: Topics[StatusEvent] = Topics()
    tailer = Tailer(order_database, topics)
    watched = Subscription(topics, "watched")
    topics.take_requests(10)
    async with await psycopg.AsyncConnection.connect(order_database, autocommit=True) as connection:
        reading = EventCursor(connection)
        await reading.start()
        await insert_many(connection)
        tracemalloc.start()
        try:
            await tailer.poll(reading)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2 * 2**20, f"{peak / 2**20:.1f} MiB"
        assert list(topics.take_requests(10)) == [watched.key], "its log is read again"
        assert await reading.read() == []


async def test_watchers_miss_nothing_of_a_bulk_change(shop: OrderShop) -> None:
    """Of orders that are in it, of those that change beside it, and of those that come while it is looked at."""
    orders = [await shop.create() for _ in range(20)]
    watchers = [Watching(shop, order.id) for order in orders]
    for watching in watchers:
        await watching.until(1)
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as bulk:
        for order in orders[:10]:
            await bulk.execute(INSERT, (order.id, 2, "PROCESSED"))
            await bulk.execute("UPDATE orders SET status = 'PROCESSED', version = 2 WHERE id = %s", (order.id,))
        await insert_many(bulk, 5_000)
        for order in orders[10:]:
            await shop.move("PROCESSED", order.id)
        await bulk.commit()
    watchers += [Watching(shop, order.id) for order in orders]
    for order in orders:
        await shop.move("DELIVERED", order.id)
    for watching in watchers:
        await watching.until(3)
        watching.check()


@pytest.mark.parametrize("cut", [False, True])
async def test_polls_that_always_find_too_many_miss_nothing(
    shop: OrderShop, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Also while connections are lost in between."""
    monkeypatch.setattr(cursor, "MAX_EVENTS", 0)
    orders = [await shop.create() for _ in range(10)]
    watchers = [Watching(shop, order.id) for order in orders]
    for step in PATHS["RECEIVED"]:
        await asyncio.gather(*(shop.move(step, order.id) for order in orders))
        if cut:
            await cut_tailers(shop)
    for watching in watchers:
        await watching.until(4)
        watching.check()
