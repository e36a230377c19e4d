"""Callers of an order service that verifies tokens: customers, staff, guests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from shop.order.v1 import order_pb2, order_pb2_grpc, status_feed_pb2

from tests.support.oidc import Provider
from tests.support.order import FakeStock, OrderShop, create_request, order_shop
from tests.support.product import Refusal, refusal_of

Metadata = tuple[tuple[str, str], ...]

ORDER_TICKET = "order-ticket"


@dataclass(frozen=True)
class Caller:
    """Calls OrderService with what the caller has."""

    orders: "order_pb2_grpc.OrderServiceAsyncStub"
    metadata: Metadata = ()

    def with_ticket(self, *tickets: str) -> "Caller":
        return Caller(self.orders, (*self.metadata, *((ORDER_TICKET, each) for each in tickets)))

    async def create(self, key: str = "", **fields: Any) -> order_pb2.Order:
        request = create_request(request_id=key, **fields)
        return await self.orders.CreateOrder(request, metadata=self.metadata)

    async def get(self, order_id: str) -> order_pb2.Order:
        return await self.orders.GetOrder(order_pb2.GetOrderRequest(id=order_id), metadata=self.metadata)

    async def page(self, **fields: Any) -> order_pb2.ListOrdersResponse:
        return await self.orders.ListOrders(order_pb2.ListOrdersRequest(**fields), metadata=self.metadata)

    async def ids(self, **fields: Any) -> list[str]:
        """The ids of the first page."""
        return [order.id for order in (await self.page(**fields)).orders]

    async def cancel(self, order_id: str, etag: str = "") -> order_pb2.Order:
        request = order_pb2.CancelOrderRequest(id=order_id, etag=etag)
        return await self.orders.CancelOrder(request, metadata=self.metadata)

    async def process(self, order_id: str) -> order_pb2.Order:
        return await self.orders.ProcessOrder(order_pb2.ProcessOrderRequest(id=order_id), metadata=self.metadata)

    async def ticket(self, order_id: str) -> order_pb2.CreateOrderTicketResponse:
        request = order_pb2.CreateOrderTicketRequest(id=order_id)
        return await self.orders.CreateOrderTicket(request, metadata=self.metadata)

    async def first_event(self, order_id: str) -> order_pb2.OrderStatusEvent:
        request = order_pb2.StreamOrderStatusRequest(order_id=order_id)
        stream: Any = self.orders.StreamOrderStatus(request, metadata=self.metadata)
        try:
            event: order_pb2.OrderStatusEvent = await anext(aiter(stream))
        finally:
            stream.cancel()
        return event


@dataclass(frozen=True)
class GuardedShop:
    """A running order service that verifies tokens."""

    shop: OrderShop
    provider: Provider

    def customer(self, subject: str, **claims: Any) -> Caller:
        return self._with_token(self.provider.token(subject, **claims))

    def staff(self, subject: str = "sam") -> Caller:
        return self.customer(subject, staff=True)

    def guest(self) -> Caller:
        return Caller(self.shop.orders)

    async def authorize(self, order_id: str, token: str = "", **sent: Any) -> str:
        """Asks as the sidecar does. Returns the caller."""
        fields: dict[str, Any] = {"authorization": [f"Bearer {token}"] if token else []} | sent
        request = status_feed_pb2.AuthorizeStreamRequest(order_id=order_id, **fields)
        return (await self.shop.feed.AuthorizeStream(request)).caller

    def _with_token(self, token: str) -> Caller:
        return Caller(self.shop.orders, (("authorization", f"Bearer {token}"),))


@asynccontextmanager
async def guarded_shop(conninfo: str, provider: Provider, **variables: str) -> AsyncIterator[GuardedShop]:
    """Runs an order service that accepts the provider's tokens."""
    async with order_shop(conninfo, FakeStock(), wait=True, **provider.variables(), **variables) as shop:
        yield GuardedShop(shop, provider)


async def refusal(call: Any) -> Refusal:
    """Returns the error of a call, which must fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the call succeeded")


async def raw_refusal(call: Any) -> tuple[Any, ...]:
    """Returns all that a client sees of an error, to the byte."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        metadata = tuple(error.trailing_metadata() or ())
        return error.code(), error.details(), metadata, tuple(error.initial_metadata() or ())
    raise AssertionError("the call succeeded")
