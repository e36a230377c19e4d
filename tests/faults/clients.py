"""The clients of a shop that breaks. Each order has a key and is retried until it is placed or refused for good."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar
from uuid import uuid4

import grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from local.settings import LOOPBACK
from runtime.client import channel
from tests.support.order import create_request, status_name
from tests.support.product import Refusal, euros, refusal_of

T = TypeVar("T")

RETRYABLE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"}
"""The codes after which a client tries again."""

RETRY_TIMEOUT = 60.0
"""Seconds for which a client tries again."""

Step = tuple[str, Callable[..., Any], str]
"""A status, and the request and the method that lead to it."""

STEPS: list[Step] = [
    ("PROCESSED", order_pb2.ProcessOrderRequest, "ProcessOrder"),
    ("DELIVERED", order_pb2.DeliverOrderRequest, "DeliverOrder"),
    ("RECEIVED", order_pb2.ReceiveOrderRequest, "ReceiveOrder"),
]
CANCEL: Step = ("CANCELLED", order_pb2.CancelOrderRequest, "CancelOrder")


class Refused(Exception):
    """A call that was refused for good."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code} {refusal.reason}: {refusal.message}")
        self.refusal = refusal


@dataclass
class Attempt:
    """One idempotency key, and the responses that its client got."""

    key: str
    items: dict[str, int]
    id: str = ""
    number: str = ""
    status: str = ""
    """The last status that was acknowledged; empty if no order was."""
    refusal: str = ""
    """The reason why it was refused for good."""
    answers: set[tuple[str, str]] = field(default_factory=set)
    """Each id and number that a response had. More than one is an error."""
    time: float = 0.0
    """When it was acknowledged, by the event loop's clock."""
    seen: list[int] = field(default_factory=list)
    """The versions that its watcher saw, if it had one."""
    watched: bool = False


MOVED_ON = 100_000
"""How far the order numbers are moved on in a restored database, as docs/operations.md says."""


class Clients:
    """All clients, and what they know."""

    def __init__(self, product: str, orders: Sequence[int], *, timeout: float = 3.0) -> None:
        """Connects with the block.

        Args:
            product: The address of the product service.
            orders: The ports of the replicas of the order service.
            timeout: Seconds that one call may take.
        """
        self._stack = AsyncExitStack()
        self._product = product
        self._ports = list(orders)
        self._timeout = timeout
        self._dice = random.Random(7)
        self.attempts: list[Attempt] = []
        self.stock: dict[str, int] = {}
        """The pieces of each product that ever existed."""
        self.problems: list[str] = []
        """Refusals that no client should ever get."""
        self.told: Counter[str] = Counter()
        """The messages after which clients tried again, and how often."""
        self.restored = False
        """Whether a database was restored. Orders may then be missing, or have an earlier status."""
        self._group: asyncio.TaskGroup
        self._watchers: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        async def opened(address: str) -> grpc.aio.Channel:
            return await self._stack.enter_async_context(channel(address))

        both = "ipv4:" + ",".join(f"{LOOPBACK}:{port}" for port in self._ports)
        self._orders: Any = order_pb2_grpc.OrderServiceStub(await opened(both))
        self._each: list[Any] = [
            order_pb2_grpc.OrderServiceStub(await opened(f"ipv4:{LOOPBACK}:{port}")) for port in self._ports
        ]
        self._products: Any = product_pb2_grpc.ProductServiceStub(await opened(f"ipv4:{self._product}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self._stack.aclose()

    # --- what clients do

    async def stock_up(self, stocks: Sequence[int]) -> None:
        """Creates products with so many pieces. The last one is for `recovery`."""
        for number, stock in enumerate(stocks):
            product = product_pb2.Product(name=f"Thing {number} {uuid4().hex}", stock=stock, price=euros(number + 1))
            made = await self._products.CreateProduct(product_pb2.CreateProductRequest(product=product))
            self.stock[made.id] = stock

    async def shop(self, number: int, per_second: float) -> None:
        """Lets clients arrive at a steady rate. Each places an order and then does something with it."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for turn in range(number):
                group.create_task(self._client(turn))
                await asyncio.sleep(1 / per_second)

    def crowd(self, number: int) -> None:
        """Lets more clients arrive at once, while `shop` runs."""
        for turn in range(number):
            self._group.create_task(self._client(turn))

    async def _client(self, turn: int) -> None:
        dice = random.Random(turn)
        ids = list(self.stock)[:-1]
        items = {each: dice.randint(1, 3) for each in dice.sample(ids, dice.randint(1, 3))}
        # One in three clients does not retry after a failure.
        attempt = await self.order(self._orders, items, retry_timeout=0 if turn % 3 == 1 else RETRY_TIMEOUT)
        if not attempt.status:
            return
        if turn % 5 == 0:
            self._watch(attempt)
        kind = turn % 6
        steps = [CANCEL] if kind == 0 else STEPS[: kind - 1] + ([CANCEL] if kind == 2 else [])
        for step in steps:
            await asyncio.sleep(dice.uniform(0, 0.5))
            if not await self.move(attempt, step, with_etag=bool(turn % 2)):
                return
        if turn % 10 == 3:
            await self._adjust(dice.choice(ids))

    async def order(
        self, stub: Any, items: dict[str, int], *, retry_timeout: float = RETRY_TIMEOUT, timeout: float | None = None
    ) -> Attempt:
        """Orders until there is an answer, or `retry_timeout` seconds is over; each call may take `timeout` seconds."""
        attempt = Attempt(str(uuid4()), items)
        self.attempts.append(attempt)
        request = create_request(items, request_id=attempt.key, notes=attempt.key)

        async def create() -> order_pb2.Order:
            order: order_pb2.Order = await stub.CreateOrder(request, timeout=timeout or self._timeout)
            attempt.answers.add((order.id, order.number))
            return order

        try:
            order = await self._insist(create, retry_timeout)
            attempt.id, attempt.number, attempt.status = order.id, order.number, status_name(order)
            attempt.time = asyncio.get_running_loop().time()
            self._news.set()
            if self._dice.random() < 0.1:  # as if the response was lost
                again = await self._insist(create, retry_timeout)
                if self.restored and _sequence(order) < MOVED_ON <= _sequence(again):
                    # It was lost with the restore in between, and is a new one: its client has seen that alone.
                    attempt.number, attempt.answers = again.number, {(again.id, again.number)}
                    attempt.status, attempt.time = status_name(again), asyncio.get_running_loop().time()
        except Refused as error:
            final = error.refusal.reason in ("INSUFFICIENT_STOCK", "ORDER_EXPIRED") and not attempt.status
            if final:
                attempt.refusal = error.refusal.reason
            elif retry_timeout or error.refusal.code not in RETRYABLE:
                self.problems.append(f"create: {error}")
        return attempt

    async def move(self, attempt: Attempt, step: Step, *, with_etag: bool = False) -> bool:
        """Moves an order on and returns whether it worked. A retry has the etag of the first attempt."""
        status, kind, method = step
        etag = str(len(_path(attempt.status))) if with_etag else ""
        request = kind(id=attempt.id, etag=etag)
        try:
            await self._insist(lambda: getattr(self._orders, method)(request, timeout=self._timeout), RETRY_TIMEOUT)
        except Refused as error:
            if not self.restored:
                self.problems.append(f"{method}: {error}")
            return False
        attempt.status = status
        return True

    async def make_up_for(self, order_id: str) -> None:
        """Does what people do about an order without stock: cancels it or, if it was delivered, adds the pieces."""
        (attempt,) = [each for each in self.attempts if each.id == order_id]
        if attempt.status in ("PLACED", "PROCESSED"):
            assert await self.move(attempt, CANCEL)
        else:
            for product, quantity in attempt.items.items():
                await self._adjust(product, quantity)

    async def _adjust(self, product: str, delta: int = 1) -> None:
        request = product_pb2.AdjustStockRequest(id=product, delta=delta, request_id=str(uuid4()))
        self.stock[product] += delta
        await self._insist(lambda: self._products.AdjustStock(request, timeout=self._timeout), RETRY_TIMEOUT)

    async def _insist(self, call: Callable[[], Awaitable[T]], retry_timeout: float) -> T:
        clock = asyncio.get_running_loop().time
        deadline = clock() + retry_timeout
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
            if refusal.code not in RETRYABLE or clock() >= deadline:
                raise Refused(refusal)
            self.told[refusal.message] += 1
            await asyncio.sleep(min(refusal.retry_after or 0.2, 0.5) * self._dice.uniform(0.5, 1))

    # --- what clients observe

    async def acknowledged(self, number: int) -> None:
        """Waits until so many orders are placed."""
        async with asyncio.timeout(90):
            while sum(bool(each.status) for each in self.attempts) < number:
                self._news.clear()
                await self._news.wait()

    async def recovery(self, ended: float) -> float:
        """Returns the seconds from the end of a fault until each replica has placed an order that came after it."""
        clock = asyncio.get_running_loop().time

        async def placed(stub: Any) -> None:
            items = {list(self.stock)[-1]: 1}
            while not (await self.order(stub, items, retry_timeout=0, timeout=1)).status:
                await asyncio.sleep(0.1)

        async with asyncio.timeout(60):
            await asyncio.gather(*(placed(stub) for stub in self._each))
        return clock() - ended

    def _watch(self, attempt: Attempt) -> None:
        attempt.watched = True
        task = asyncio.create_task(self._follow(attempt))
        self._watchers.add(task)

    async def _follow(self, attempt: Attempt) -> None:
        """Follows an order as a browser does: reconnects after each break, from the last version on."""
        while True:
            after = attempt.seen[-1] if attempt.seen else 0
            request = order_pb2.StreamOrderStatusRequest(order_id=attempt.id, after_version=after)
            try:
                async for event in self._orders.StreamOrderStatus(request):
                    attempt.seen.append(event.version)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND and self.restored:
                    return
                if error.code().name not in RETRYABLE:
                    self.problems.append(f"watch: {error.code().name} {error.details()}")
                    return
            await asyncio.sleep(0.3)


def _sequence(order: order_pb2.Order) -> int:
    return int(order.number.rpartition("-")[2])


def _path(status: str) -> list[str]:
    """Returns the statuses that an order had until this one."""
    names = ["PLACED", *(step[0] for step in STEPS)]
    return names[: names.index(status) + 1]
