"""StatusFeedService: follows many orders over one call. Internal: the edge does not route it."""

import asyncio
import re
from collections.abc import AsyncIterator

from shop.order.v1 import status_feed_pb2, status_feed_pb2_grpc

from order.convert import event_messages
from order.domain import StatusEvent
from order.live.authorizer import StreamAuthorizer
from order.live.logs import Followers
from runtime.headers import Context
from runtime.subscriptions import LogError, Subscription, SubscriptionSet

NAME = status_feed_pb2.DESCRIPTOR.services_by_name["StatusFeedService"].full_name

MAX_NEWS_PER_MESSAGE = 200
"""Orders whose news one message carries."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class StatusFeedService(status_feed_pb2_grpc.StatusFeedServiceServicer):
    """Sends the news of followed orders. The proto says what each RPC does."""

    def __init__(self, followers: Followers, authorizer: StreamAuthorizer) -> None:
        self._followers = followers
        self._authorizer = authorizer

    async def FollowOrders(
        self, request_iterator: AsyncIterator[status_feed_pb2.FollowOrdersRequest], context: Context
    ) -> AsyncIterator[status_feed_pb2.FollowOrdersResponse]:
        with self._followers.follow_many() as subscriptions:
            call = _Call(subscriptions)
            reader = asyncio.create_task(call.read(request_iterator))
            try:
                await context.send_initial_metadata(())
                # While the client does not read, flow control holds this loop, and news waits as a set of orders.
                while not call.complete:
                    news = await call.news()
                    if news:
                        yield status_feed_pb2.FollowOrdersResponse(news=news)
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def AuthorizeStream(
        self, request: status_feed_pb2.AuthorizeStreamRequest, context: Context
    ) -> status_feed_pb2.AuthorizeStreamResponse:
        return status_feed_pb2.AuthorizeStreamResponse(caller=await self._authorizer.authorize(request))


class _Call:
    """The orders of one call."""

    def __init__(self, subscriptions: SubscriptionSet[StatusEvent]) -> None:
        self._subscriptions = subscriptions
        self._follow_ids: dict[str, int] = {}
        """By order; the client tells by it which follow the news belongs to."""
        self._unanswered: set[str] = set()
        self._malformed: list[status_feed_pb2.FollowedOrder] = []
        self._all_requested = False

    @property
    def complete(self) -> bool:
        """Whether the client requests no more and has everything."""
        return self._all_requested and not self._malformed and not len(self._subscriptions)

    async def read(self, requests: AsyncIterator[status_feed_pb2.FollowOrdersRequest]) -> None:
        """Does what the client requests, until it requests no more."""
        try:
            async for request in requests:
                for order_id in request.unfollow:
                    self._unfollow(order_id)
                for order in request.follow:
                    self._follow(order)
        finally:
            self._all_requested = True
            self._subscriptions.wake()

    def _follow(self, order: status_feed_pb2.FollowedOrder) -> None:
        if not _CANONICAL_UUID.fullmatch(order.order_id):
            # No order has such an id. An error would end the call for all the others.
            self._malformed.append(order)
            self._subscriptions.wake()
            return
        self._follow_ids[order.order_id] = order.follow_id
        self._unanswered.add(order.order_id)
        self._subscriptions.follow(order.order_id, order.after_version)

    def _unfollow(self, order_id: str) -> None:
        self._subscriptions.unfollow(order_id)
        self._follow_ids.pop(order_id, None)
        self._unanswered.discard(order_id)

    async def news(self) -> list[status_feed_pb2.OrderNews]:
        """Waits until something happens. Returns the news of some orders, or nothing."""
        updates = await self._subscriptions.updates(MAX_NEWS_PER_MESSAGE)
        room = MAX_NEWS_PER_MESSAGE - len(updates)
        malformed, self._malformed = self._malformed[:room], self._malformed[room:]
        if self._malformed:
            self._subscriptions.wake()
        news = [
            status_feed_pb2.OrderNews(order_id=order.order_id, follow_id=order.follow_id, missing=True)
            for order in malformed
        ]
        news.extend(one for subscription in updates if (one := self._news_of(subscription)))
        return news

    def _news_of(self, subscription: Subscription[StatusEvent]) -> status_feed_pb2.OrderNews | None:
        order_id = subscription.key
        first = order_id in self._unanswered
        if first and not subscription.answered:
            return None
        news = status_feed_pb2.OrderNews(order_id=order_id, follow_id=self._follow_ids[order_id])
        try:
            subscription.check()
            seen = subscription.version
            events = subscription.take()
            news.events.extend(event_messages(order_id, seen, events))
            news.traceparents.update({each.version: each.traceparent for each in events if each.traceparent})
            news.done = subscription.done
        except LogError:
            news.missing = True
        if not (first or news.events or news.done or news.missing):
            return None
        self._unanswered.discard(order_id)
        if news.done or news.missing:
            self._unfollow(order_id)
        return news
