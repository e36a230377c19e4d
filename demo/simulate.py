"""The fulfilment simulator: moves orders on through the public RPCs, as a warehouse and a carrier would.

An order's pace follows from its id and its own times, not from anything remembered here: a restart goes on where it
was, and two simulators agree. It sends the order's etag, so a cancellation that is quicker wins.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
from shop.order.v1 import order_pb2, order_pb2_grpc

from demo.load import CALL_TIMEOUT

log = logging.getLogger(__name__)

Status = order_pb2.Order.Status

UNTIL = {Status.PLACED: 0.3, Status.PROCESSED: 0.7, Status.DELIVERED: 1.0}
"""The share of an order's whole time after which it leaves a status."""

LOOK_EVERY = 1.0
"""Seconds between two looks at the open orders."""

LATE = 2 * LOOK_EVERY
"""Seconds that the last step may come late: until the next look, and for the calls of one."""

PAGES = 10
"""Pages of open orders, per status and look: newest first, so old ones cannot starve new ones."""

AT_ONCE = 8
"""Orders that are moved on at the same time."""

QUICKER = {grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}
"""Somebody else did something with the order."""


@dataclass(frozen=True)
class Pace:
    """How long orders take from PLACED to RECEIVED, in seconds."""

    shortest: float
    longest: float

    def whole(self, order_id: UUID) -> float:
        """The time of one order: always the same, spread evenly over all of them, and over before `longest` is."""
        longest = max(self.longest - LATE, self.shortest)
        return self.shortest + (longest - self.shortest) * (order_id.int % 1009) / 1008

    def due(self, order_id: UUID, status: "Status.ValueType", placed: datetime) -> datetime:
        """When an order that was placed then leaves a status: one step's delay does not make the next one later."""
        return placed + timedelta(seconds=self.whole(order_id) * UNTIL[status])


class Simulator:
    def __init__(self, channel: grpc.aio.Channel, pace: Pace) -> None:
        self._stub = order_pb2_grpc.OrderServiceStub(channel)
        self._pace = pace

    async def run(self) -> None:
        """Moves orders on for ever. An order service that is away is waited for."""
        away = ""
        while True:
            try:
                await self.look()
                if away:
                    log.info("the order service is back")
                away = ""
            except grpc.aio.AioRpcError as error:
                if away != error.code().name:
                    away = error.code().name
                    log.warning("waiting for the order service: %s", away)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Moves on every open order whose time has come."""
        now = datetime.now(UTC)
        gate = asyncio.Semaphore(AT_ONCE)
        due = [
            order
            for status in UNTIL
            async for order in self._open(status)
            if self._pace.due(UUID(order.id), status, order.create_time.ToDatetime(UTC)) <= now
        ]
        await asyncio.gather(*(self._move(order, gate) for order in due))

    async def _open(self, status: "Status.ValueType") -> AsyncIterator[order_pb2.Order]:
        token = ""
        for _ in range(PAGES):
            request = order_pb2.ListOrdersRequest(page_size=100, page_token=token, status=status)
            page = await self._stub.ListOrders(request, timeout=CALL_TIMEOUT)
            for order in page.orders:
                yield order
            token = page.next_page_token
            if not token:
                return

    async def _move(self, order: order_pb2.Order, gate: asyncio.Semaphore) -> None:
        """One order that cannot be moved on keeps no other one from it; the next look tries again."""
        async with gate:
            try:
                await self._step(order)
            except grpc.aio.AioRpcError as error:
                if error.code() not in QUICKER:
                    log.warning("order %s stays %s: %s", order.id, Status.Name(order.status), error.code().name)

    async def _step(self, order: order_pb2.Order) -> None:
        which = {"id": order.id, "etag": order.etag}
        match order.status:
            case Status.PLACED:
                await self._stub.ProcessOrder(order_pb2.ProcessOrderRequest(**which), timeout=CALL_TIMEOUT)
            case Status.PROCESSED:
                await self._stub.DeliverOrder(order_pb2.DeliverOrderRequest(**which), timeout=CALL_TIMEOUT)
            case Status.DELIVERED:
                await self._stub.ReceiveOrder(order_pb2.ReceiveOrderRequest(**which), timeout=CALL_TIMEOUT)
