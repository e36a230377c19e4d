"""The one call to the order service, over which all watched orders are followed."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection

import grpc
from shop.order.v1.status_feed_pb2 import FollowedOrder, FollowOrdersRequest, FollowOrdersResponse, OrderNews
from shop.order.v1.status_feed_pb2_grpc import StatusFeedServiceStub

from runtime.topics import Topics
from sse.config import Timing
from sse.streams.wire import StatusEvent, status_event

log = logging.getLogger(__name__)

BATCH = 1_000
"""Orders in one request; a request stays far below a server's largest message."""

BACKOFF = (0.1, 2.0)
"""Seconds before the first and before each late attempt to call again; half of it is chance."""

ECHO = 30.0
"""Seconds for which news of an order that was unfollowed may still be under way."""

Call = grpc.aio.StreamStreamCall[FollowOrdersRequest, FollowOrdersResponse]


class Feed:
    """Keeps the logs of all watched orders (`topics`) current.

    There is a call while something is watched. A call that breaks is made again, to whichever process of the order
    service answers, and each order is followed after the last version known: watchers notice nothing. What stays away
    longer than `Timing.patience` is told to `on_lost`, by order id.
    """

    def __init__(self, channel: grpc.aio.Channel, timing: Timing, on_lost: Callable[[Collection[str]], None]) -> None:
        self._stub = StatusFeedServiceStub(channel)
        self._timing = timing
        self._on_lost = on_lost
        self.topics: Topics[StatusEvent] = Topics(self._follow, self._unfollow)
        self._clock = asyncio.get_running_loop().time
        self._changed = asyncio.Event()
        self._to_follow: dict[str, None] = {}
        self._to_unfollow: dict[str, None] = {}
        # Of the present call:
        self._call: Call | None = None
        self._heard = False
        self._following: set[str] = set()
        self._unanswered: set[str] = set()
        self._left: dict[str, float] = {}
        self._progress = 0.0
        self._overdue_timer: asyncio.TimerHandle | None = None
        self._lost_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Follows, for ever."""
        delay, longest = BACKOFF
        try:
            while True:
                while not self.topics:
                    self._changed.clear()
                    await self._changed.wait()
                self._lose()
                code = await self._converse()
                if self._heard:
                    delay = BACKOFF[0]
                if code and self.topics:
                    self._lose()
                    log.log(logging.WARNING if self._heard else logging.INFO, "status feed ended: %s", code)
                    await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - no secret
                    delay = min(delay * 2, longest)
        finally:
            for timer in (self._lost_timer, self._overdue_timer):
                if timer:
                    timer.cancel()
            self._lost_timer = self._overdue_timer = None

    async def _converse(self) -> str:
        """One call, from beginning to end; answers its status code, or nothing if it ended for want of watchers."""
        # Waits for a connection rather than fail: the channel knows first when there is one.
        call: Call = self._stub.FollowOrders(wait_for_ready=True)
        self._call, self._heard = call, False
        for of_last_call in (self._to_follow, self._to_unfollow, self._following, self._unanswered, self._left):
            of_last_call.clear()
        self.topics.request_all()
        reading, writing = tasks = asyncio.create_task(self._read(call)), asyncio.create_task(self._write(call))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            unwatched = not reading.done() and not writing.exception()
        finally:
            self._call = None
            call.cancel()
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(
                    outcome, grpc.aio.AioRpcError | asyncio.InvalidStateError
                ):
                    log.error("status feed failed", exc_info=outcome)
        return "" if unwatched else (await call.code()).name

    # What we say.

    def _follow(self, order_id: str) -> None:
        if order_id in self._following:
            self._to_unfollow[order_id] = None
        self._to_follow[order_id] = None
        self._changed.set()

    def _unfollow(self, order_id: str) -> None:
        self._to_follow.pop(order_id, None)
        self._unanswered.discard(order_id)
        if order_id in self._following:
            self._to_unfollow[order_id] = None
        self._settle()
        self._changed.set()

    async def _write(self, call: Call) -> None:
        """Ends when nothing is watched any more."""
        while self.topics:
            if request := self._request():
                await call.write(request)
            else:
                self._changed.clear()
                await self._changed.wait()

    def _request(self) -> FollowOrdersRequest | None:
        """What was gathered since the last request. Orders are unfollowed before they are followed anew."""
        if self._to_unfollow:
            unfollow = _first(self._to_unfollow)
            now = self._clock()
            for order_id in unfollow:
                self._following.discard(order_id)
                self._left.pop(order_id, None)
                self._left[order_id] = now
            while (oldest := next(iter(self._left))) and self._left[oldest] < now - ECHO:
                del self._left[oldest]
            return FollowOrdersRequest(unfollow=unfollow)
        if self._to_follow:
            follow = _first(self._to_follow)
            self._following.update(follow)
            if not self._unanswered:
                self._progress = self._clock()
            self._unanswered.update(follow)
            if self._overdue_timer is None:
                self._overdue()
            versions = (FollowedOrder(order_id=each, after_version=self.topics.version(each)) for each in follow)
            return FollowOrdersRequest(follow=versions)
        return None

    # What we hear.

    async def _read(self, call: Call) -> None:
        """Ends when the server ends the call."""
        while isinstance(response := await call.read(), FollowOrdersResponse):
            self._heard = True
            self._progress = self._clock()
            for news in response.news:
                self._take(news)
            self._settle()

    def _take(self, news: OrderNews) -> None:
        order_id = news.order_id
        if news.missing:
            self._unanswered.discard(order_id)
            self._following.discard(order_id)
            self.topics.miss(order_id)
            return
        newest = len(news.events) - 1
        events = [status_event(event, last=news.done and i == newest) for i, event in enumerate(news.events)]
        if self._may_be_echo(order_id, events):
            if news.done and order_id in self.topics:
                # Or a log whose beginning was pruned. The order is not followed now: what is asked is answered whole.
                self._following.discard(order_id)
                del self._left[order_id]
                self._follow(order_id)
            return
        self._unanswered.discard(order_id)
        if news.done:
            self._following.discard(order_id)
        self.topics.fill(order_id, events, latest=order_id not in self._to_follow)

    def _may_be_echo(self, order_id: str, events: list[StatusEvent]) -> bool:
        """An order was unfollowed and followed anew: what was under way then is not the log that was asked for."""
        if order_id not in self._left or self.topics.version(order_id):
            return False
        return not events or events[0].version != 1

    # Whether we are heard.

    def _lose(self) -> None:
        if self._lost_timer is None:
            self._lost_timer = asyncio.get_running_loop().call_later(self._timing.patience, self._give_up)

    def _settle(self) -> None:
        """Every order that is watched has been answered, or none is watched."""
        heard = self._heard and self._call and not self._unanswered and not self._to_follow
        if self._lost_timer and (heard or not self.topics):
            self._lost_timer.cancel()
            self._lost_timer = None

    def _give_up(self) -> None:
        self._lost_timer = None
        given_up = list(self._unanswered) if self._heard and self._call else self.topics.keys()
        log.warning("%d orders were not followed for %g s", len(given_up), self._timing.patience)
        self._on_lost(given_up)
        self._lose()

    def _overdue(self) -> None:
        """Ends a call on which answers are due and nothing comes."""
        self._overdue_timer = None
        if not self._unanswered or self._call is None:
            return
        left = self._progress + self._timing.answer - self._clock()
        if left <= 0:
            self._call.cancel()
        else:
            self._overdue_timer = asyncio.get_running_loop().call_later(left, self._overdue)


def _first(waiting: dict[str, None]) -> list[str]:
    """Takes a batch out."""
    batch = list(waiting)[:BATCH]
    for order_id in batch:
        del waiting[order_id]
    return batch
