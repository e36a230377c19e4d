"""StatusFeedService: many orders followed over one call. Internal: the edge does not route it."""

import asyncio
import re
from collections.abc import AsyncIterator

from shop.order.v1 import status_feed_pb2, status_feed_pb2_grpc

from order.convert import event_messages
from order.domain import StatusEvent
from order.live.followers import Follower, Followers
from runtime.headers import Context
from runtime.topics import Watcher

NAME = status_feed_pb2.DESCRIPTOR.services_by_name["StatusFeedService"].full_name

BATCH = 200
"""Orders whose news one message carries at most."""

_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class StatusFeedService(status_feed_pb2_grpc.StatusFeedServiceServicer):
    def __init__(self, followers: Followers) -> None:
        self._followers = followers

    async def FollowOrders(
        self, requests: AsyncIterator[status_feed_pb2.FollowOrdersRequest], context: Context
    ) -> AsyncIterator[status_feed_pb2.FollowOrdersResponse]:
        feed = _Feed(self._followers.add())
        reader = asyncio.create_task(feed.read(requests))
        try:
            await context.send_initial_metadata(())
            # Where the client does not read, flow control holds this loop up, and news waits as a set of orders.
            while not feed.over:
                news = await feed.news()
                if news:
                    yield status_feed_pb2.FollowOrdersResponse(news=news)
        finally:
            reader.cancel()
            feed.close()
            await asyncio.gather(reader, return_exceptions=True)


class _Feed:
    """One call's orders."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._unanswered: set[str] = set()
        self._strangers: list[str] = []
        self._complete = False
        """The client will not ask for more."""

    @property
    def over(self) -> bool:
        return self._complete and not self._strangers and not len(self._follower)

    def close(self) -> None:
        self._follower.close()

    async def read(self, requests: AsyncIterator[status_feed_pb2.FollowOrdersRequest]) -> None:
        try:
            async for request in requests:
                for key in request.unfollow:
                    self._follower.unfollow(key)
                    self._unanswered.discard(key)
                for order in request.follow:
                    self._follow(order)
        finally:
            self._complete = True
            self._follower.wake()

    def _follow(self, order: status_feed_pb2.FollowedOrder) -> None:
        if not _CANONICAL.fullmatch(order.order_id):
            # No order has such an id. An error would end the call for all the others.
            self._strangers.append(order.order_id)
            self._follower.wake()
            return
        self._unanswered.add(order.order_id)
        # A browser may have seen more at another process than this one knows: the answer is how the log is now.
        self._follower.follow(order.order_id, order.after_version, renew=True)

    async def news(self) -> list[status_feed_pb2.OrderNews]:
        """Waits until something happens; what is new of some orders then, or nothing."""
        watchers = await self._follower.news(BATCH)
        room = BATCH - len(watchers)
        strangers, self._strangers = self._strangers[:room], self._strangers[room:]
        if self._strangers:
            self._follower.wake()
        news = [status_feed_pb2.OrderNews(order_id=key, missing=True) for key in strangers]
        for watcher in watchers:
            one = self._of(watcher)
            if one:
                news.append(one)
        return news

    def _of(self, watcher: Watcher[StatusEvent]) -> status_feed_pb2.OrderNews | None:
        key = watcher.topic.key
        if key in self._unanswered and not watcher.topic.answered:
            return None
        seen = watcher.version
        # Who has seen more than the log has, saw what a restored database has lost: that order is not there any more.
        missing = watcher.topic.missing or (key in self._unanswered and seen > watcher.topic.version)
        events = [] if missing else watcher.take()
        done = not missing and watcher.done
        if not events and not done and key not in self._unanswered and not missing:
            return None
        self._unanswered.discard(key)
        if missing or done:
            self._follower.unfollow(key)
        return status_feed_pb2.OrderNews(
            order_id=key, missing=missing, events=event_messages(key, seen, events), done=done
        )
