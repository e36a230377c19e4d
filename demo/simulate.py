"""The fulfilment simulator: moves orders on through the public RPCs, as a warehouse and a carrier would.

When an order moves on depends only on its id and its own times. The simulator remembers nothing: it continues after a
restart, and two simulators agree. It sends the order's etag, so a cancellation that comes first wins.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
from shop.order.v1 import order_pb2, order_pb2_grpc

from demo.calls import CALL_TIMEOUT, CONFLICTS
from runtime.logs import LogOnce

log = logging.getLogger(__name__)

Status = order_pb2.Order.Status

LEAVES_AT = {Status.PLACED: 0.3, Status.PROCESSED: 0.7, Status.DELIVERED: 1.0}
"""For each status, the share of an order's whole time after which the order leaves it."""

POLL_INTERVAL = 1.0
"""Seconds between two polls of the open orders."""

MAX_LATENESS = 2 * POLL_INTERVAL
"""Seconds that the last step may be late: until the next poll, and for the calls of one poll."""

PAGE_SIZE = 100
"""Orders on a page of the list."""

MAX_PAGES = 10
"""Pages that a poll reads for each status: the newest orders first, so that old orders cannot delay new ones."""

MAX_CONCURRENT_MOVES = 8
"""Orders that are moved on at the same time."""


@dataclass(frozen=True)
class Pace:
    """How long orders take from PLACED to RECEIVED, in seconds."""

    shortest: float
    longest: float

    def duration(self, order_id: UUID) -> float:
        """Returns the seconds that an order takes from PLACED to RECEIVED.

        It is always the same for an order, spread evenly over all orders, and ends early enough before `longest` for
        the last step to be late.
        """
        longest = max(self.longest - MAX_LATENESS, self.shortest)
        return self.shortest + (longest - self.shortest) * (order_id.int % 1009) / 1008

    def due(self, order_id: UUID, status: "Status.ValueType", placed: datetime) -> datetime:
        """Returns when an order leaves a status. It counts from when the order was placed, so delays do not add up."""
        return placed + timedelta(seconds=self.duration(order_id) * LEAVES_AT[status])


class Simulator:
    """Moves open orders on, at a pace."""

    def __init__(self, channel: grpc.aio.Channel, pace: Pace) -> None:
        self._stub = order_pb2_grpc.OrderServiceStub(channel)
        self._pace = pace

    async def run(self) -> None:
        """Moves orders on until cancelled. Waits for the order service while it is unavailable."""
        waiting = LogOnce(log, logging.WARNING)
        while True:
            try:
                await self.poll()
                if waiting.reset():
                    log.info("the order service is available again")
            except grpc.aio.AioRpcError as error:
                waiting(f"waiting for the order service: {error.code().name}")
            await asyncio.sleep(POLL_INTERVAL)

    async def poll(self) -> None:
        """Moves on every open order that is due."""
        now = datetime.now(UTC)
        slots = asyncio.Semaphore(MAX_CONCURRENT_MOVES)
        due = [
            order
            for status in LEAVES_AT
            async for order in self._list_open(status)
            if self._pace.due(UUID(order.id), status, order.create_time.ToDatetime(UTC)) <= now
        ]
        await asyncio.gather(*(self._move(order, slots) for order in due))

    async def _list_open(self, status: "Status.ValueType") -> AsyncIterator[order_pb2.Order]:
        token = ""
        for _ in range(MAX_PAGES):
            request = order_pb2.ListOrdersRequest(page_size=PAGE_SIZE, page_token=token, status=status)
            page = await self._stub.ListOrders(request, timeout=CALL_TIMEOUT)
            for order in page.orders:
                yield order
            token = page.next_page_token
            if not token:
                return

    async def _move(self, order: order_pb2.Order, slots: asyncio.Semaphore) -> None:
        """Moves an order on. A failure does not affect other orders; the next poll tries again."""
        async with slots:
            try:
                await self._next_step(order)
            except grpc.aio.AioRpcError as error:
                if error.code() not in CONFLICTS:
                    log.warning("order %s stays %s: %s", order.id, Status.Name(order.status), error.code().name)

    def _next_step(self, order: order_pb2.Order) -> Awaitable[order_pb2.Order]:
        fields = {"id": order.id, "etag": order.etag}
        match order.status:
            case Status.PLACED:
                return self._stub.ProcessOrder(order_pb2.ProcessOrderRequest(**fields), timeout=CALL_TIMEOUT)
            case Status.PROCESSED:
                return self._stub.DeliverOrder(order_pb2.DeliverOrderRequest(**fields), timeout=CALL_TIMEOUT)
            case Status.DELIVERED:
                return self._stub.ReceiveOrder(order_pb2.ReceiveOrderRequest(**fields), timeout=CALL_TIMEOUT)
            case _:
                raise ValueError(f"an order that is {Status.Name(order.status)} has no next step")
