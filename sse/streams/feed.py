"""The one call to the order service, over which all watched orders are followed."""

import asyncio
import logging
import random
from typing import NoReturn

import grpc
from shop.order.v1.status_feed_pb2 import FollowedOrder, FollowOrdersRequest, FollowOrdersResponse, OrderNews
from shop.order.v1.status_feed_pb2_grpc import StatusFeedServiceStub

from runtime.access.credential import Credential
from runtime.backoff import Backoff
from runtime.topics import Topics
from sse.config import Timing
from sse.streams.connections import CloseReason, StreamClosedError
from sse.streams.wire import StatusEvent, status_event

log = logging.getLogger(__name__)

MAX_ORDERS_PER_REQUEST = 1_000
"""Orders that one request follows or unfollows; it stays far below a server's largest message."""

CALL_RETRY_PAUSE = (0.1, 2.0)
"""Seconds before another call, at first and at most."""

UPSTREAM_CHECKS = 30
"""Number of checks for lost streams within `Timing.upstream_timeout`."""

Stream = grpc.aio.StreamStreamCall[FollowOrdersRequest, FollowOrdersResponse]


class Feed:
    """Keeps the logs of all watched orders (`topics`) current.

    There is a call while an order is watched. A call that breaks is made again, to whichever replica of the order
    service responds, and each order is followed after the last version known: browsers notice nothing. A call also ends
    after `Timing.feed_age`: otherwise new replicas would get no calls. What is not followed for
    `Timing.upstream_timeout` has its streams closed with UPSTREAM_LOST.
    """

    def __init__(self, channel: grpc.aio.Channel, credential: Credential, timing: Timing) -> None:
        self._credential = credential
        self._stub = StatusFeedServiceStub(channel)
        self._timing = timing
        self._call: _Call | None = None
        self.topics: Topics[StatusEvent] = Topics(keep_released=True)

    @property
    def is_up(self) -> bool:
        """Whether the order service responds, as far as it is asked: there is no call while no order is watched."""
        call = self._call
        return bool(call and call.heard) or not self.topics

    async def run(self) -> NoReturn:
        """Follows what is watched."""
        backoff = Backoff(*CALL_RETRY_PAUSE)
        while True:
            while not self.topics:
                self.topics.take_released(MAX_ORDERS_PER_REQUEST)
                await self.topics.changed()
            # Waits for a connection rather than fail: the channel knows first when there is one.
            call = self._call = _Call(
                self._stub.FollowOrders(wait_for_ready=True, metadata=self._credential.metadata()),
                self.topics,
                self._timing.answer_timeout,
                self._timing.feed_age * random.uniform(0.8, 1.2),  # noqa: S311 - no secret
            )
            try:
                failure = await call.run()
            finally:
                self._call = None
            if call.heard:
                backoff.reset()
            if failure and self.topics:
                log.log(logging.WARNING if call.heard else logging.INFO, "status feed ended: %s", failure)
                await asyncio.sleep(backoff.next())

    async def close_lost_streams(self) -> NoReturn:
        """Closes the streams of orders that have not been followed for too long."""
        clock = asyncio.get_running_loop().time
        timeout = self._timing.upstream_timeout
        followed_at = clock()
        while True:
            await asyncio.sleep(timeout / UPSTREAM_CHECKS)
            call = self._call
            if not self.topics or (call and call.caught_up):
                followed_at = clock()
            elif clock() - followed_at >= timeout:
                lost = list(call.unanswered) if call and call.heard else self.topics.keys()
                log.warning("%d watched orders got no status feed for %g s; closing their streams", len(lost), timeout)
                self.topics.fail(lost, StreamClosedError(CloseReason.UPSTREAM_LOST))
                followed_at = clock()


class _Call:
    """One call, from beginning to end."""

    def __init__(self, stream: Stream, topics: Topics[StatusEvent], answer_timeout: float, max_age: float) -> None:
        self._stream = stream
        self._topics = topics
        self._answer_timeout = answer_timeout
        self._max_age = max_age
        self._deadline = asyncio.timeout(None)
        """Of the next response; there is one while answers are due."""
        self._follow_ids: dict[str, int] = {}
        """The orders that the order service follows for this call, each with the id of its newest follow."""
        self.unanswered: set[str] = set()
        """Orders whose newest follow has no answer yet."""
        self.heard = False
        """Whether the order service responded at all."""
        self.caught_up = False
        """Whether all orders that were watched at one moment of this call had their answers."""

    async def run(self) -> str:
        """Follows until the call ends. Returns why it failed; empty if it is old or no order is watched now."""
        for _ in iter(lambda: self._topics.take_released(MAX_ORDERS_PER_REQUEST), []):
            pass  # an earlier call's
        self._topics.refresh_all()
        reading, writing = tasks = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            async with self._deadline:
                await asyncio.wait(tasks, timeout=self._max_age, return_when=asyncio.FIRST_COMPLETED)
            failed = reading.done() or (writing.done() and writing.exception())
        except TimeoutError:
            return f"no answer within {self._answer_timeout:g} s"
        finally:
            self._stream.cancel()
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(
                    outcome, grpc.aio.AioRpcError | asyncio.InvalidStateError
                ):
                    log.error("status feed failed", exc_info=outcome)
        return (await self._stream.code()).name if failed else ""

    async def _write(self) -> None:
        """Sends what changes. Ends when nothing is watched any more."""
        while self._topics:
            if request := self._next_request():
                await self._stream.write(request)
            else:
                await self._topics.changed()

    def _next_request(self) -> FollowOrdersRequest | None:
        """Returns what has changed since the last request."""
        released = self._topics.take_released(MAX_ORDERS_PER_REQUEST)
        unfollow = [order_id for order_id in released if self._follow_ids.pop(order_id, None)]
        self.unanswered.difference_update(unfollow)
        if unfollow and not self.unanswered:
            self._expect_response(due=False)
        requests = self._topics.take_requests(MAX_ORDERS_PER_REQUEST)
        if requests and not self.unanswered:
            self._expect_response(due=True)
        self._follow_ids.update(requests)
        self.unanswered.update(requests)
        self._check_progress()
        if not unfollow and not requests:
            return None
        follow = (
            FollowedOrder(order_id=order_id, after_version=self._topics.version(order_id), follow_id=request)
            for order_id, request in requests.items()
        )
        return FollowOrdersRequest(follow=follow, unfollow=unfollow)

    async def _read(self) -> None:
        """Takes in what comes. Ends when the order service ends the call."""
        while isinstance(response := await self._stream.read(), FollowOrdersResponse):
            self.heard = True
            for news in response.news:
                self._take(news)
            self._expect_response(due=bool(self.unanswered))
            self._check_progress()

    def _take(self, news: OrderNews) -> None:
        order_id = news.order_id
        # An order service without follow ids: what cannot be a whole log belongs to a follow that has ended.
        whole = news.missing or news.done or (news.events and news.events[0].version == 1)
        if not news.follow_id and not whole and not self._topics.version(order_id):
            return
        newest = self._follow_ids.get(order_id, 0)
        follow_id = news.follow_id or newest  # 0: an order service that knows no follow ids
        if follow_id == newest:
            self.unanswered.discard(order_id)
            if news.missing or news.done:
                self._follow_ids.pop(order_id, None)
        if news.missing:
            self._topics.mark_missing(order_id, follow_id)
            return
        last = len(news.events) - 1
        events = [
            status_event(event, last=news.done and n == last, traceparent=news.traceparents.get(event.version, ""))
            for n, event in enumerate(news.events)
        ]
        self._topics.load(order_id, follow_id, events)

    def _expect_response(self, *, due: bool) -> None:
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._answer_timeout if due else None)

    def _check_progress(self) -> None:
        if self.heard and not self.unanswered and not self._topics.requested:
            self.caught_up = True
