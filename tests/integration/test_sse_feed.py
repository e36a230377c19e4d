"""The sidecar's one call to the order service, over which orders are unfollowed and followed again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from shop.order.v1 import status_feed_pb2

from runtime.subscriptions import Subscription
from runtime.topics import Topics
from sse.config import Timing
from sse.streams.feed import Feed
from sse.streams.wire import StatusEvent
from tests.support.sidecar import Script, event, sidecar

ORDER, OTHER = "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-42d3-a456-426614174001"
STATUSES = ("PLACED", "PROCESSED", "DELIVERED", "RECEIVED")


@asynccontextmanager
async def following(feed: Feed, order_id: str) -> AsyncIterator[Subscription[StatusEvent]]:
    """A subscription whose log is here."""
    with Subscription(feed.topics, order_id) as subscription:
        await subscription.ready(5)
        yield subscription


def versions_of(events: list[StatusEvent]) -> list[int]:
    return [event.version for event in events]


async def rest(subscription: Subscription[StatusEvent]) -> list[int]:
    async with asyncio.timeout(5):
        return [event.version async for events in subscription for event in events]


async def test_news_of_ended_follow_is_no_log() -> None:
    """An order was unfollowed and followed again while news of it was under way.

    The new stream begins with the order's first event, not with that news.
    """
    async with sidecar() as running:
        feed, logs = running.sidecar.feed, running.logs
        other, order = logs.place("PLACED"), logs.place("PLACED")
        async with following(feed, other):
            async with following(feed, order) as first:
                assert first.version == 0
                logs.add(order, "PROCESSED")
            async with following(feed, order) as second:
                logs.add(order, "CANCELLED")
                assert await rest(second) == [1, 2, 3]


@dataclass
class Order:
    """One order at an order service that sends what the test says."""

    script: Script
    id: str = ORDER

    async def follow(self) -> status_feed_pb2.FollowedOrder:
        """Returns the sidecar's next follow of the order."""
        while True:
            request = await asyncio.wait_for(self.script.requests.get(), 5)
            for order in request.follow:
                if order.order_id == self.id:
                    return order

    def send(self, follow_id: int, *versions: int, missing: bool = False, done: bool = False) -> None:
        events = [event(self.id, version, STATUSES[version - 1]) for version in versions]
        news = status_feed_pb2.OrderNews(
            order_id=self.id, follow_id=follow_id, events=events, missing=missing, done=done
        )
        self.script.responses.put_nowait(status_feed_pb2.FollowOrdersResponse(news=[news]))


@asynccontextmanager
async def scripted(answer_timeout: float = 10) -> AsyncIterator[tuple[Order, Topics[StatusEvent]]]:
    async with sidecar(timing=Timing(answer_timeout=answer_timeout)) as running:
        script = running.pods[0].feed.script = Script()
        yield Order(script), running.sidecar.feed.topics


@pytest.mark.parametrize(
    ("versions", "missing", "done"), [((2,), False, False), ((), True, False), ((2, 3, 4), False, True)]
)
async def test_news_with_older_follow_id_is_dropped(versions: tuple[int, ...], missing: bool, done: bool) -> None:
    """Whatever it says: it belongs to a follow that has ended."""
    async with scripted() as (order, topics):
        with Subscription(topics, OTHER):
            with Subscription(topics, ORDER):
                old = await order.follow()
            with Subscription(topics, ORDER) as subscription:
                new = await order.follow()
                assert new.follow_id > old.follow_id > 0
                order.send(old.follow_id, *versions, missing=missing, done=done)
                order.send(new.follow_id, 1, 2)
                await subscription.ready(5)
                order.send(new.follow_id, 3, 4, done=True)
                assert await rest(subscription) == [1, 2, 3, 4]


async def test_order_service_without_follow_ids_works() -> None:
    """During an upgrade, the order service may be of the version before: it sends 0, which counts as a match."""
    async with scripted() as (order, topics):
        with Subscription(topics, ORDER) as subscription:
            await order.follow()
            order.send(0, 1, 2)
            await subscription.ready(5)
            with Subscription(topics, ORDER, 3) as ahead:
                assert (await order.follow()).after_version == 2
                order.send(0, 3)
                await ahead.ready(5)
                order.send(0, 4, done=True)
                assert await rest(subscription) == [1, 2, 3, 4]
                assert await rest(ahead) == [4]


async def test_news_of_earlier_follow_reaches_readers_during_refresh() -> None:
    """Whoever claims to have seen more has the log read again, and delays nobody else."""
    async with scripted() as (order, topics):
        with Subscription(topics, ORDER) as subscription:
            first = await order.follow()
            order.send(first.follow_id, 1)
            await subscription.ready(5)
            assert versions_of(subscription.take()) == [1]
            with Subscription(topics, ORDER, 9) as ahead:
                await order.follow()
                order.send(first.follow_id, 2)
                async with asyncio.timeout(5):
                    assert versions_of(await anext(subscription)) == [2]
                assert not ahead.answered


async def test_late_news_without_follow_id_is_no_log() -> None:
    """An order service of the previous release sends no follow ids.

    Its late news of an ended follow must not be taken for the log of the next one.
    """
    async with scripted() as (order, topics):
        with Subscription(topics, OTHER):
            with Subscription(topics, ORDER) as first:
                await order.follow()
                order.send(0, 1, 2)
                await first.ready(5)
            with Subscription(topics, ORDER) as second:
                await order.follow()
                order.send(0, 3)
                order.send(0, 1, 2, 3, 4, done=True)
                assert await rest(second) == [1, 2, 3, 4]


async def test_unfollowed_order_keeps_no_deadline() -> None:
    """A browser leaves before the log of its order came. The call has nothing to wait for then."""
    async with scripted(answer_timeout=0.3) as (order, topics):
        other = Order(order.script, OTHER)
        with Subscription(topics, OTHER) as subscription:
            follow_id = (await other.follow()).follow_id
            other.send(follow_id, 1)
            await subscription.ready(5)
            with Subscription(topics, ORDER):
                await order.follow()
            await asyncio.sleep(0.6)  # twice the deadline: that nothing happens is no event to wait for
            other.send(follow_id, 1, 2, done=True)
            assert await rest(subscription) == [1, 2]
            left = [order.script.requests.get_nowait() for _ in range(order.script.requests.qsize())]
            assert [each.order_id for request in left for each in request.follow] == [], "the call was made again"


async def test_old_call_is_replaced_by_one_to_another_replica() -> None:
    """So replicas that came later get calls. The reader sees each event once."""
    async with sidecar(pods=2, timing=Timing(feed_age=0.2)) as running:
        feed, logs = running.sidecar.feed, running.logs
        order = logs.place("PLACED")
        async with following(feed, order) as subscription:
            reading = asyncio.create_task(rest(subscription))
            for status in STATUSES[1:]:
                await asyncio.sleep(0.5)
                logs.add(order, status)
            assert await reading == [1, 2, 3, 4]
        assert all(pod.feed.calls >= 2 for pod in running.pods)
