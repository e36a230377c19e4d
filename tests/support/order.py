"""An order service in the process of the test, on a real database and a free port, with its clients."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from shop.cart.v1 import cart_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc, status_feed_pb2_grpc

from local.settings import free_ports
from order.app import serving
from order.config import Config
from order.domain import Item, Line, Offer, total_micros
from order.live.logs import Followers
from order.stock import DatabasePair, ProductUnavailable, Reservation, ReservationState, Stock, StoredReservation
from runtime.config import Env
from runtime.errors import from_domain
from runtime.prices import Price, price_changed
from runtime.server import Server
from tests.support.access import credentials, internal_channel
from tests.support.eventually import eventually

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

A, B, C = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
"""Ids of products. FakeStock has every product."""


@dataclass
class FakeStock:
    """A product service that never runs out of stock."""

    reservations: dict[UUID, Reservation] = field(default_factory=dict)
    calls: list[tuple[str, UUID]] = field(default_factory=list)
    overdue: list[UUID] = field(default_factory=list)
    """The expired holds."""
    down: bool = False
    price_micros: int = 1_500_000
    currency: str = "EUR"
    available: int = 1_000
    """What it says that there is of each product."""

    def _record(self, name: str, order_id: UUID) -> None:
        self.calls.append((name, order_id))
        if self.down:
            raise ProductUnavailable

    def _set(self, order_id: UUID, state: ReservationState) -> None:
        before = self.reservations.get(order_id, Reservation(state, "", []))
        self.reservations[order_id] = Reservation(state, before.currency, before.items)
        self.overdue = [each for each in self.overdue if each != order_id]

    def state(self, order_id: str) -> ReservationState | None:
        reservation = self.reservations.get(UUID(order_id))
        return reservation.state if reservation else None

    async def reserve(
        self, order_id: UUID, lines: Sequence[Line], timeout: float | None, expected: Price | None = None
    ) -> Reservation:
        self._record("reserve", order_id)
        items = [
            Item(
                product_id=str(line.product_id),
                quantity=line.quantity,
                name=f"Product {str(line.product_id)[-1]}",
                price_micros=self.price_micros,
            )
            for line in lines
        ]
        total = Price(self.currency, total_micros(items))
        if expected and order_id not in self.reservations and total.exceeds(expected):
            raise from_domain(price_changed(expected, total))
        return self.reservations.setdefault(order_id, Reservation(ReservationState.HELD, self.currency, items))

    async def get_offers(self, product_ids: Sequence[UUID]) -> Mapping[UUID, Offer]:
        if self.down:
            raise ProductUnavailable
        price = Price(self.currency, self.price_micros)
        return {each: Offer(f"Product {str(each)[-1]}", price, self.available, deleted=False) for each in product_ids}

    async def confirm(self, order_id: UUID) -> Reservation | None:
        self._record("confirm", order_id)
        if order_id not in self.reservations:
            return None
        if self.reservations[order_id].state is ReservationState.HELD:
            self._set(order_id, ReservationState.CONFIRMED)
        return self.reservations[order_id]

    async def release(self, order_id: UUID) -> None:
        self._record("release", order_id)
        self._set(order_id, ReservationState.RELEASED)

    async def batch_confirm(self, order_ids: Sequence[UUID]) -> Sequence[Reservation | Exception | None]:
        return [await _outcome(self.confirm(each)) for each in order_ids]

    async def batch_release(self, order_ids: Sequence[UUID]) -> Sequence[Exception | None]:
        return [await _outcome(self.release(each)) for each in order_ids]

    async def list_expired(self, limit: int, page_token: str) -> tuple[list[UUID], str]:
        if self.down:
            raise ProductUnavailable
        later = [each for each in self.overdue if str(each) not in page_token]
        more = ",".join([page_token, *map(str, later[:limit])])
        return later[:limit], more if len(later) > limit else ""

    async def find(self, order_ids: Sequence[UUID]) -> dict[UUID, StoredReservation]:
        return {each: self._stored(each) for each in order_ids if each in self.reservations}

    async def list_taken(self) -> AsyncIterator[list[StoredReservation]]:
        stored = [self._stored(each) for each in sorted(self.reservations)]
        yield [each for each in stored if each.state is not ReservationState.RELEASED]

    def _stored(self, order_id: UUID) -> StoredReservation:
        expire_time = EPOCH if order_id in self.overdue else datetime.now(UTC) + timedelta(minutes=1)
        return StoredReservation(**vars(self.reservations[order_id]), id=order_id, expire_time=expire_time)

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool = False, replace: bool = False
    ) -> DatabasePair:
        return DatabasePair(product_database or UUID(int=1), order_database)


async def _outcome(call: Awaitable[T]) -> T | Exception:
    try:
        return await call
    except Exception as error:
        return error


@dataclass(frozen=True)
class OrderShop:
    """The running service and its clients."""

    address: str
    conninfo: str
    server: Server
    followers: Followers
    orders: "order_pb2_grpc.OrderServiceAsyncStub"  # known to the type checker only
    feed: "status_feed_pb2_grpc.StatusFeedServiceAsyncStub"
    carts: "cart_pb2_grpc.CartServiceAsyncStub"

    async def create(self, items: dict[str, int] | None = None, **fields: Any) -> order_pb2.Order:
        return await self.orders.CreateOrder(create_request(items, **fields))

    async def get(self, order_id: str) -> order_pb2.Order:
        return await self.orders.GetOrder(order_pb2.GetOrderRequest(id=order_id))

    async def move(self, target: str, order_id: str, etag: str = "", **call: Any) -> order_pb2.Order:
        """Gives an order the status `target`."""
        moves: dict[str, Callable[..., Awaitable[order_pb2.Order]]] = {
            "PROCESSED": lambda **to: self.orders.ProcessOrder(order_pb2.ProcessOrderRequest(**to), **call),
            "DELIVERED": lambda **to: self.orders.DeliverOrder(order_pb2.DeliverOrderRequest(**to), **call),
            "RECEIVED": lambda **to: self.orders.ReceiveOrder(order_pb2.ReceiveOrderRequest(**to), **call),
            "CANCELLED": lambda **to: self.orders.CancelOrder(order_pb2.CancelOrderRequest(**to), **call),
        }
        return await moves[target](id=order_id, etag=etag)

    async def outbox_is_empty(self) -> bool:
        """Returns whether the relay has sent all messages."""
        async with self.connection() as connection:
            return not await (await connection.execute("SELECT FROM outbox")).fetchall()

    def stream(self, order_id: str, after_version: int = 0, **call: Any) -> Any:
        request = order_pb2.StreamOrderStatusRequest(order_id=order_id, after_version=after_version)
        return self.orders.StreamOrderStatus(request, **call)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection to the database that does not pass through the service."""
        async with await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True) as connection:
            yield connection


PATHS = {
    "PLACED": [],
    "PROCESSED": ["PROCESSED"],
    "DELIVERED": ["PROCESSED", "DELIVERED"],
    "RECEIVED": ["PROCESSED", "DELIVERED", "RECEIVED"],
    "CANCELLED": ["CANCELLED"],
}
"""The moves that bring a placed order to each status."""


def create_request(items: dict[str, int] | None = None, **fields: Any) -> order_pb2.CreateOrderRequest:
    wanted = {A: 1} if items is None else items
    return order_pb2.CreateOrderRequest(
        items=[order_pb2.CreateOrderItem(product_id=key, quantity=quantity) for key, quantity in wanted.items()],
        **fields,
    )


def status_name(message: Any) -> str:
    return order_pb2.Order.Status.Name(message.status)


@asynccontextmanager
async def order_shop(
    conninfo: str, product: str | Stock, *, wait: bool = True, **variables: str
) -> AsyncIterator[OrderShop]:
    """Runs the service on a migrated database.

    Args:
        conninfo: The connection string of the database.
        product: The address of the product service, or a fake.
        wait: Wait until the service is ready.
        variables: Environment variables of the service.
    """
    (port,) = free_ports(1)
    own = {
        "LISTEN_HOST": "127.0.0.1",
        "GRPC_PORT": str(port),
        "DATABASE_URL": conninfo,
        "SHUTDOWN_DELAY": "0",
        "INTERNAL_CREDENTIALS": str(credentials()),
        "TICKET_KEYS": str(credentials()),
        "SHUTDOWN_GRACE": "1",
        "PRODUCT_TARGET": product if isinstance(product, str) else "",
    }
    stock = None if isinstance(product, str) else product
    address = f"127.0.0.1:{port}"
    config = Config.from_env(Env(own | variables))
    async with internal_channel(address) as channel, serving(config, stock) as running:
        if wait:
            await eventually(lambda: running.server.ready)
        yield OrderShop(
            address,
            conninfo,
            running.server,
            running.followers,
            order_pb2_grpc.OrderServiceStub(channel),
            status_feed_pb2_grpc.StatusFeedServiceStub(channel),
            cart_pb2_grpc.CartServiceStub(channel),
        )
