"""The tailer: what is committed anywhere reaches all watchers, whatever happens to connections and commits."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from order.domain import StatusEvent
from order.live.cursor import EventCursor
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop
from tests.support.watching import INSERT, Watching, cut_tailers


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


@pytest.fixture
async def other(order_database: str, shop: OrderShop) -> AsyncIterator[OrderShop]:
    """A second order process on the same database."""
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


async def connect(shop: OrderShop, **options: Any) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(shop.conninfo, **options)


async def test_change_in_another_process_is_seen_quickly(shop: OrderShop, other: OrderShop) -> None:
    """The hint wakes it: far sooner than the look each second."""
    order = await shop.create()
    watching = Watching(shop, order.id)
    await watching.until(1)
    for version, step in enumerate(PATHS["RECEIVED"], start=2):
        await other.move(step, order.id)
        await watching.until(version, 0.4)
    watching.check()


async def test_change_without_hint_is_seen_within_a_second(shop: OrderShop) -> None:
    order = await shop.create()
    watching = Watching(shop, order.id)
    await watching.until(1)
    async with shop.connection() as connection:
        await connection.execute(INSERT, (order.id, 2, "PROCESSED"))
    await watching.until(2, 1.5)


async def test_long_transaction_delays_no_event(shop: OrderShop, other: OrderShop) -> None:
    order = await shop.create()
    watching = Watching(shop, order.id)
    await watching.until(1)
    long = await connect(shop)
    async with long:
        await long.execute("SELECT pg_current_xact_id()")
        for version, step in enumerate(PATHS["RECEIVED"], start=2):
            await other.move(step, order.id)
            await watching.until(version, 0.5)
    watching.check()


async def test_commits_out_of_order_lose_no_event(shop: OrderShop) -> None:
    """The first transaction to begin is the last to commit; between any two the tailer looks."""
    orders = [await shop.create() for _ in range(5)]
    watchers = [Watching(shop, order.id) for order in orders]
    for watching in watchers:
        await watching.until(1)
    connections = [await connect(shop) for _ in orders]
    for connection, order in zip(connections, orders, strict=True):
        await connection.execute(INSERT, (order.id, 2, "PROCESSED"))
    for connection, watching in reversed(list(zip(connections, watchers, strict=True))):
        await connection.commit()
        await connection.execute("NOTIFY order_event")
        await connection.commit()
        await watching.until(2)
        await connection.close()
    for watching in watchers:
        watching.check()


async def test_clock_changes_do_not_affect_order_of_events(shop: OrderShop, other: OrderShop) -> None:
    """What was written while it was a year ahead, or behind, comes in the sequence in which it happened."""
    order = await shop.create()
    watching = Watching(shop, order.id)
    await watching.until(1)
    year = timedelta(days=365)
    for version, (step, by) in enumerate(zip(PATHS["RECEIVED"], (year, -2 * year, year), strict=True), start=2):
        async with shop.connection() as connection:
            await connection.execute("UPDATE orders SET update_time = update_time + %s", (by,))
            await connection.execute("UPDATE order_event SET create_time = create_time + %s", (by,))
        await other.move(step, order.id)
        await watching.until(version, 0.5)
    watching.check()
    async with shop.connection() as connection:
        cursor = await connection.execute(
            "SELECT array_agg(create_time ORDER BY version) FROM order_event WHERE order_id = %s", (order.id,)
        )
        row = await cursor.fetchone()
    assert row
    assert row[0] == sorted(row[0]), "the times of an order's history do not run backwards"


async def test_what_is_rolled_back_is_never_seen(shop: OrderShop) -> None:
    order = await shop.create()
    watching = Watching(shop, order.id)
    await watching.until(1)
    async with await connect(shop) as connection:
        await connection.execute(INSERT, (order.id, 2, "CANCELLED"))
        await connection.rollback()
    await shop.move("PROCESSED", order.id)
    await watching.until(2)
    assert watching.seen == [(1, "PLACED"), (2, "PROCESSED")]


async def test_a_lost_connection_loses_no_event(shop: OrderShop, other: OrderShop) -> None:
    """What is committed while the tailers are away is read from the logs when they are back."""
    orders = [await shop.create() for _ in range(20)]
    watchers = [Watching(where, order.id) for order in orders for where in (shop, other)]
    for watching in watchers:
        await watching.until(1)
    for version, step in enumerate(PATHS["RECEIVED"], start=2):
        assert await cut_tailers(shop) == 2
        await asyncio.gather(*(other.move(step, order.id) for order in orders))
        for watching in watchers:
            await watching.until(version)
    for watching in watchers:
        watching.check()
        assert len(watching.seen) == 4


async def test_readers_that_join_during_changes_miss_nothing(shop: OrderShop, other: OrderShop) -> None:
    """Subscribing races with commits, with looks and with cut connections."""
    orders = [await shop.create() for _ in range(10)]
    watchers: list[Watching] = []

    async def drive(order_id: str, delay: float) -> None:
        for step in PATHS["RECEIVED"]:
            await asyncio.sleep(delay)
            await other.move(step, order_id)

    drivers = [asyncio.create_task(drive(order.id, 0.02 + n / 200)) for n, order in enumerate(orders)]
    for n in range(60):
        watchers.append(Watching((shop, other)[n % 2], orders[n % 10].id))
        if n == 30:
            await cut_tailers(shop)
        await asyncio.sleep(0.005)
    await asyncio.gather(*drivers)
    for watching in watchers:
        await watching.until(4)
        watching.check()


async def test_restored_transaction_ids_are_reset(order_database: str) -> None:
    """A logical restore into a new cluster brings them; each look would find them again."""
    keys = [uuid4() for _ in range(7)]
    async with await psycopg.AsyncConnection.connect(order_database, autocommit=True) as connection:
        for key in keys:
            await connection.execute(
                "INSERT INTO orders (id, number, status) VALUES (%s, next_order_number(), 'PLACED')", (key,)
            )
            await connection.execute(
                "INSERT INTO order_event (order_id, version, status, create_time, xid)"
                " VALUES (%s, 1, 'PLACED', now(), '9000000000')",
                (key,),
            )
        async with order_shop(order_database, FakeStock()) as shop:
            watching = Watching(shop, str(keys[0]))
            await watching.until(1)
            await shop.move("CANCELLED", str(keys[0]))
            await watching.until(2)
            watching.check()
        row = await (await connection.execute("SELECT count(*) FROM order_event WHERE xid >= '9000000000'")).fetchone()
        assert row == (0,)


async def test_only_watched_orders_are_kept(shop: OrderShop) -> None:
    watched, unwatched = await shop.create(), await shop.create()
    watching = Watching(shop, watched.id)
    await watching.until(1)
    await shop.move("PROCESSED", unwatched.id)
    await shop.move("PROCESSED", watched.id)
    await watching.until(2)
    assert shop.followers.topics.keys() == [watched.id]


async def test_cursor_reads_each_event_once(shop: OrderShop) -> None:
    """With transactions open and commits in any sequence, no read returns again what an earlier one returned."""
    found: list[tuple[str, int]] = []
    order = await shop.create()
    async with await connect(shop, autocommit=True) as looking, await connect(shop) as early:
        cursor = EventCursor(looking)
        await cursor.start()

        async def read() -> None:
            found.extend((order_id, event.version) for order_id, event in await cursor.read())

        await early.execute(INSERT, (order.id, 3, "DELIVERED"))
        await shop.move("PROCESSED", order.id)
        for _ in range(3):
            await read()
        assert found == [(order.id, 2)]
        await early.commit()
        for _ in range(3):
            await read()
    assert found == [(order.id, 2), (order.id, 3)]


async def test_commits_are_not_read_while_nobody_follows(shop: OrderShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is still polled each second, other processes are told, and who follows later misses nothing."""
    reads = 0
    read = EventCursor.read

    async def counted(cursor: EventCursor) -> list[tuple[str, StatusEvent]]:
        nonlocal reads
        reads += 1
        return await read(cursor)

    monkeypatch.setattr(EventCursor, "read", counted)
    orders = []
    began = asyncio.get_running_loop().time()
    for _ in range(20):
        orders.append(await shop.create())
        await asyncio.sleep(0.05)
    assert reads <= 1 + (asyncio.get_running_loop().time() - began), "by the poll alone"
    watchers = [Watching(shop, order.id) for order in orders]
    for order in orders:
        await shop.move("PROCESSED", order.id)
    for watching in watchers:
        await watching.until(2, 0.9)
        watching.check()


async def test_followers_elsewhere_are_told_while_nobody_follows_here(shop: OrderShop, other: OrderShop) -> None:
    """The process that commits reads nothing, and still wakes the other at once."""
    order = await other.create()
    watching = Watching(shop, order.id)
    await watching.until(1)
    for version, step in enumerate(PATHS["RECEIVED"], start=2):
        await other.move(step, order.id)
        await watching.until(version, 0.4)
    assert not other.followers.topics
