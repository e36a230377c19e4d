"""The clients of a shop that breaks. Each order has a key and is retried until it is placed or refused for good."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self
from uuid import uuid4

import grpc
from shop.cart.v1 import cart_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from local.settings import LOOPBACK
from runtime.client import channel
from tests.faults.attempts import RETRY_TIMEOUT, RETRYABLE, Attempt, Record, Refused
from tests.faults.shoppers import Basket, Shoppers
from tests.support.access import bearer, senders
from tests.support.oidc import Issuer
from tests.support.order import create_request
from tests.support.product import euros

Step = tuple[str, Callable[..., Any], str]
"""A status, and the request and the method that lead to it."""

STEPS: list[Step] = [
    ("PROCESSED", order_pb2.ProcessOrderRequest, "ProcessOrder"),
    ("DELIVERED", order_pb2.DeliverOrderRequest, "DeliverOrder"),
    ("RECEIVED", order_pb2.ReceiveOrderRequest, "ReceiveOrder"),
]
CANCEL: Step = ("CANCELLED", order_pb2.CancelOrderRequest, "CancelOrder")


class Clients(Record):
    """All clients, and what they know. They act as staff, except for those that buy through carts."""

    shoppers: Shoppers

    def __init__(self, product: str, orders: Sequence[int], issuer: Issuer, *, timeout: float = 3.0) -> None:
        """Connects with the block.

        Args:
            product: The address of the product service.
            orders: The ports of the replicas of the order service.
            issuer: Makes the tokens that the order service accepts.
            timeout: Seconds that one call may take.
        """
        super().__init__()
        self._stack = AsyncExitStack()
        self._product = product
        self._ports = list(orders)
        self._timeout = timeout
        self._issuer = issuer
        self.stock: dict[str, int] = {}
        """The pieces of each product that ever existed."""
        self._group: asyncio.TaskGroup
        self._watchers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        staff = bearer(self._issuer.token("staff", staff=True))

        async def opened(address: str, interceptors: Sequence[grpc.aio.ClientInterceptor] = ()) -> grpc.aio.Channel:
            return await self._stack.enter_async_context(channel(address, interceptors))

        replicas = [f"ipv4:{LOOPBACK}:{port}" for port in self._ports]
        both = "ipv4:" + ",".join(f"{LOOPBACK}:{port}" for port in self._ports)
        self._orders: Any = order_pb2_grpc.OrderServiceStub(await opened(both, senders(lambda: staff)))
        self._each: list[Any] = [
            order_pb2_grpc.OrderServiceStub(await opened(each, senders(lambda: staff))) for each in replicas
        ]
        self._products: Any = product_pb2_grpc.ProductServiceStub(await opened(f"ipv4:{self._product}"))
        carts = [cart_pb2_grpc.CartServiceStub(await opened(each)) for each in (both, *replicas)]
        self.shoppers = Shoppers(self, self._issuer, carts[0], carts[1:], self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self._stack.aclose()

    @property
    def baskets(self) -> Sequence[Basket]:
        """All carts."""
        return self.shoppers.baskets

    # --- what clients do

    async def stock_up(self, stocks: Sequence[int]) -> None:
        """Creates products with so many pieces. The last one is for `recovery`."""
        for number, stock in enumerate(stocks):
            product = product_pb2.Product(name=f"Thing {number} {uuid4().hex}", stock=stock, price=euros(number + 1))
            made = await self._products.CreateProduct(product_pb2.CreateProductRequest(product=product))
            self.stock[made.id] = stock

    async def shop(self, number: int, per_second: float, *, first: int = 0) -> None:
        """Lets clients arrive at a steady rate. Each places an order and then does something with it.

        Args:
            number: How many clients arrive.
            per_second: How many of them in a second.
            first: The number of clients that have arrived before. It makes these do something else.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            for turn in range(first, first + number):
                group.create_task(self._client(turn))
                await asyncio.sleep(1 / per_second)

    def crowd(self, number: int) -> None:
        """Lets more clients arrive at once, while `shop` runs. Without carts, they reserve at once."""
        for turn in range(number):
            self._group.create_task(self._client(turn // 2 * 4 + turn % 2))

    async def _client(self, turn: int) -> None:
        dice = random.Random(turn)
        ids = list(self.stock)[:-1]
        items = _some_of(ids, dice)
        # One in three clients does not retry after a failure. Every other pair buys through carts.
        retry_timeout = 0 if turn % 3 == 1 else RETRY_TIMEOUT
        if turn % 4 < 2:
            attempt = await self.order(self._orders, items, retry_timeout=retry_timeout)
        else:
            attempt = await self.shoppers.buy(turn, items, retry_timeout=retry_timeout)
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
        if turn % 10 == 5:
            await self._reprice(dice.choice(ids), dice.randint(1, 9))

    def new_carts(self, number: int) -> list[dict[str, int]]:
        """Returns what goes into so many carts: products that do not run out."""
        return [_some_of(list(self.stock)[:-2], self.dice) for _ in range(number)]

    async def order(
        self, stub: Any, items: dict[str, int], *, retry_timeout: float = RETRY_TIMEOUT, timeout: float | None = None
    ) -> Attempt:
        """Orders until there is an answer, or `retry_timeout` seconds is over; each call may take `timeout` seconds."""
        attempt = Attempt(str(uuid4()), items)
        self.attempts.append(attempt)
        request = create_request(items, request_id=attempt.key, notes=attempt.key)

        async def create() -> order_pb2.Order:
            order: order_pb2.Order = await stub.CreateOrder(request, timeout=timeout or self._timeout)
            return order

        try:
            await self.place(attempt, create, retry_timeout)
        except Refused as error:
            final = error.refusal.reason in ("INSUFFICIENT_STOCK", "ORDER_EXPIRED") and not attempt.status
            if final:
                attempt.refusal = error.refusal.reason
            elif retry_timeout or not error.is_retryable:
                self.problems.append(f"create: {error}")
        return attempt

    async def move(self, attempt: Attempt, step: Step, *, with_etag: bool = False) -> bool:
        """Moves an order on and returns whether it worked. A retry has the etag of the first attempt."""
        status, kind, method = step
        etag = str(len(_path(attempt.status))) if with_etag else ""
        request = kind(id=attempt.id, etag=etag)
        try:
            await self.insist(lambda: getattr(self._orders, method)(request, timeout=self._timeout))
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
        await self.insist(lambda: self._products.AdjustStock(request, timeout=self._timeout))

    async def _reprice(self, product: str, price: int) -> None:
        change = product_pb2.Product(id=product, price=euros(price))
        request = product_pb2.UpdateProductRequest(product=change)
        await self.insist(lambda: self._products.UpdateProduct(request, timeout=self._timeout))

    # --- what clients observe

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


def _some_of(products: list[str], dice: random.Random) -> dict[str, int]:
    """Returns what a client wants: some pieces of some products."""
    return {each: dice.randint(1, 3) for each in dice.sample(products, dice.randint(1, 3))}


def _path(status: str) -> list[str]:
    """Returns the statuses that an order had until this one."""
    names = ["PLACED", *(step[0] for step in STEPS)]
    return names[: names.index(status) + 1]
