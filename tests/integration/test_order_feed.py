"""FollowOrders: many orders over one call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from shop.order.v1 import status_feed_pb2

from order.live import feed_service
from tests.support.eventually import eventually
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop, status_name
from tests.support.product import UNKNOWN, refused
from tests.support.watching import silenced, tailer_pids


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


class Feed:
    """A client of one call: what it was told of each order."""

    def __init__(self, shop: OrderShop) -> None:
        self.call = shop.feed.FollowOrders()
        self.seen: dict[str, list[tuple[int, str]]] = {}
        self.done: set[str] = set()
        self.missing: set[str] = set()
        self.largest = 0

    async def follow(self, *orders: tuple[str, int] | str) -> None:
        pairs = [each if isinstance(each, tuple) else (each, 0) for each in orders]
        follow = [status_feed_pb2.FollowedOrder(order_id=key, after_version=after) for key, after in pairs]
        await self.call.write(status_feed_pb2.FollowOrdersRequest(follow=follow))

    async def unfollow(self, *keys: str) -> None:
        await self.call.write(status_feed_pb2.FollowOrdersRequest(unfollow=keys))

    async def read(self) -> list[status_feed_pb2.OrderNews]:
        async with asyncio.timeout(5):
            message: Any = await self.call.read()
        assert message is not grpc.aio.EOF
        self.largest = max(self.largest, len(message.news))
        for news in message.news:
            events = [(event.version, status_name(event)) for event in news.events]
            self.seen.setdefault(news.order_id, []).extend(events)
            if news.done:
                self.done.add(news.order_id)
            if news.missing:
                self.missing.add(news.order_id)
        return list(message.news)


async def test_each_order_is_answered_once_then_followed(shop: OrderShop) -> None:
    orders = [await shop.create() for _ in range(3)]
    feed = Feed(shop)
    await feed.follow(*(order.id for order in orders))
    while len(feed.seen) < 3:
        await feed.read()
    for order in orders:
        for step in PATHS["RECEIVED"]:
            await shop.move(step, order.id)
    while len(feed.done) < 3:
        await feed.read()
    expected = list(enumerate(["PLACED", *PATHS["RECEIVED"]], start=1))
    assert feed.seen == {order.id: expected for order in orders}


async def test_resume_with_nothing_new_is_answered(shop: OrderShop) -> None:
    order = await shop.create()
    feed = Feed(shop)
    await feed.follow((order.id, 1))
    (news,) = await feed.read()
    assert (news.order_id, list(news.events), news.done, news.missing) == (order.id, [], False, False)
    await shop.move("CANCELLED", order.id)
    await feed.read()
    assert feed.seen[order.id] == [(2, "CANCELLED")]


@pytest.mark.parametrize("step", [None, "CANCELLED"])
async def test_follow_after_unknown_version_is_missing(shop: OrderShop, step: str | None) -> None:
    """Its database was restored: what would come next could be what was seen already, by its number."""
    order = await shop.create()
    if step:
        await shop.move(step, order.id)
    feed = Feed(shop)
    await feed.follow((order.id, 3))
    (news,) = await feed.read()
    assert (list(news.events), news.done, news.missing) == ([], False, True)


async def test_a_finished_order_is_done_at_once(shop: OrderShop) -> None:
    order = await shop.create()
    await shop.move("CANCELLED", order.id)
    feed = Feed(shop)
    await feed.follow((order.id, 2))
    (news,) = await feed.read()
    assert (list(news.events), news.done) == ([], True)


async def test_unknown_and_malformed_ids_are_missing(shop: OrderShop) -> None:
    order = await shop.create()
    feed = Feed(shop)
    await feed.follow(UNKNOWN, "1", order.id)
    while len(feed.seen) < 3:
        await feed.read()
    assert feed.missing == {UNKNOWN, "1"}
    assert feed.seen[order.id] == [(1, "PLACED")]


async def test_an_unfollowed_order_is_silent(shop: OrderShop) -> None:
    quiet, loud = await shop.create(), await shop.create()
    feed = Feed(shop)
    await feed.follow(quiet.id, loud.id)
    while len(feed.seen) < 2:
        await feed.read()
    await feed.unfollow(quiet.id)

    async def forgotten() -> bool:
        return len(shop.followers.topics) == 1

    await eventually(forgotten)
    await shop.move("PROCESSED", quiet.id)
    await shop.move("PROCESSED", loud.id)
    assert [news.order_id for news in await feed.read()] == [loud.id]


async def test_following_again_starts_after_the_version_given(shop: OrderShop) -> None:
    order = await shop.create()
    feed = Feed(shop)
    await feed.follow(order.id)
    await feed.read()
    await feed.follow(order.id)
    await feed.read()
    assert feed.seen[order.id] == [(1, "PLACED")] * 2


async def test_answer_is_the_log_as_it_is_now(shop: OrderShop, order_database: str) -> None:
    """Who comes from a process that was ahead must not be told less than was seen there."""
    order = await shop.create()
    first, second = Feed(shop), Feed(shop)
    await first.follow(order.id)
    await first.read()
    (pid,) = await tailer_pids(shop)
    async with silenced(pid), order_shop(order_database, FakeStock()) as other:
        await other.move("PROCESSED", order.id)
        await second.follow((order.id, 1))
        await second.read()
        await first.read()
    assert second.seen[order.id] == [(2, "PROCESSED")]
    assert first.seen[order.id] == [(1, "PLACED"), (2, "PROCESSED")]


async def test_call_ends_when_all_orders_are_done(shop: OrderShop) -> None:
    order = await shop.create()
    feed = Feed(shop)
    await feed.follow(order.id)
    await feed.read()
    await feed.call.done_writing()
    await shop.move("CANCELLED", order.id)
    await feed.read()
    assert await feed.call.read() is grpc.aio.EOF
    assert await feed.call.code() is grpc.StatusCode.OK


async def insert_orders(connection: psycopg.AsyncConnection[Any], number: int) -> list[str]:
    cursor = await connection.execute(
        "WITH placed AS (INSERT INTO orders (id, number, status)"
        " SELECT gen_random_uuid(), next_order_number(), 'PLACED' FROM generate_series(1, %s) RETURNING id),"
        " events AS (INSERT INTO order_event (order_id, version, status, create_time)"
        " SELECT id, 1, 'PLACED', now() FROM placed)"
        " SELECT id::text FROM placed",
        (number,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def move_all(connection: psycopg.AsyncConnection[Any], version: int, status: str) -> None:
    await connection.execute(
        "WITH moved AS (UPDATE orders SET status = %s, version = version + 1 RETURNING id)"
        " INSERT INTO order_event (order_id, version, status, create_time) SELECT id, %s, %s, now() FROM moved",
        (status, version, status),
    )


async def test_thousand_orders_come_in_bounded_messages(shop: OrderShop) -> None:
    async with shop.connection() as connection:
        keys = await insert_orders(connection, 1000)
        feed = Feed(shop)
        await feed.follow(*keys, *(str(uuid4()) for _ in range(10)), *(f"malformed {n}" for n in range(300)))
        while len(feed.seen) < 1310:
            await feed.read()
        assert len(feed.missing) == 310
        await move_all(connection, 2, "PROCESSED")
        await move_all(connection, 3, "CANCELLED")
    while len(feed.done) < 1000:
        await feed.read()
    expected = [(1, "PLACED"), (2, "PROCESSED"), (3, "CANCELLED")]
    assert all(feed.seen[key] == expected for key in keys)
    assert feed.largest <= feed_service.MAX_NEWS_PER_MESSAGE


async def test_client_that_does_not_read_has_no_queue(shop: OrderShop) -> None:
    """Its orders are marked once each, however much happens; it gets all of it, in order, when it reads."""
    async with shop.connection() as connection:
        keys = await insert_orders(connection, 3000)
        feed = Feed(shop)
        await feed.follow(*keys)
        for version, status in enumerate(["PROCESSED", "DELIVERED", "RECEIVED"], start=2):
            await asyncio.sleep(0.5)
            await move_all(connection, version, status)
    while len(feed.done) < len(keys):
        await feed.read()
    expected = list(enumerate(["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"], start=1))
    assert all(feed.seen[key] == expected for key in keys)


async def test_orders_of_closed_call_are_forgotten(shop: OrderShop) -> None:
    feed = Feed(shop)
    await feed.follow((await shop.create()).id)
    await feed.read()
    feed.call.cancel()

    async def alone() -> bool:
        return len(shop.followers) == 0 and len(shop.followers.topics) == 0

    await eventually(alone)


async def test_feed_ends_with_unavailable_at_shutdown(order_database: str) -> None:
    async with order_shop(order_database, FakeStock(), SHUTDOWN_GRACE="20") as shop:
        feed = Feed(shop)
        await feed.follow((await shop.create()).id)
        await feed.read()
        waiting = asyncio.create_task(feed.read())
    with refused() as error:
        await waiting
    assert (error.what.code, error.what.message) == ("UNAVAILABLE", "the server is shutting down")


async def test_news_carries_id_of_newest_follow(shop: OrderShop) -> None:
    order = await shop.create()
    feed = Feed(shop)
    for follow_id in (7, 8):
        follow = [
            status_feed_pb2.FollowedOrder(order_id=key, follow_id=follow_id) for key in (order.id, UNKNOWN, "malformed")
        ]
        await feed.call.write(status_feed_pb2.FollowOrdersRequest(follow=follow))
        told: dict[str, int] = {}
        while len(told) < 3:
            told |= {news.order_id: news.follow_id for news in await feed.read()}
        assert set(told.values()) == {follow_id}
    await shop.move("CANCELLED", order.id)
    (news,) = await feed.read()
    assert (news.follow_id, news.done) == (8, True)


async def test_sidecar_without_follow_ids_works(shop: OrderShop) -> None:
    """During an upgrade, the sidecar may be of the version before: it sends no follow id and gets none."""
    order = await shop.create()
    feed = Feed(shop)
    for _ in range(2):
        await feed.follow(order.id)
        (news,) = await feed.read()
        assert news.follow_id == 0
        await feed.unfollow(order.id)
    await feed.follow((order.id, 1))
    await feed.read()
    await shop.move("CANCELLED", order.id)
    (news,) = await feed.read()
    assert (news.follow_id, news.done) == (0, True)
    assert feed.seen[order.id] == [(1, "PLACED"), (1, "PLACED"), (2, "CANCELLED")]
