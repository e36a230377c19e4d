"""Both services for code that is not asynchronous, as Hypothesis is not."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import grpc
from shop.cart.v1 import cart_pb2_grpc
from shop.order.v1 import order_pb2_grpc

from tests.support.access import bearer, senders
from tests.support.oidc import Issuer
from tests.support.order import OrderShop, order_shop
from tests.support.product import ProductShop, Refusal, product_shop, refusal_of

T = TypeVar("T")


class Services:
    """Both services, and a way to call them from code that is not asynchronous."""

    products: ProductShop
    orders: OrderShop
    """Its clients are staff."""
    carts: "cart_pb2_grpc.CartServiceAsyncStub"
    """Sends nothing by itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.issuer = Issuer("https://login.example")
        """Makes the tokens that the order service accepts. The product service accepts everybody."""
        self.staff = bearer(self.issuer.token("staff", staff=True))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the event loop, and returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def call_or_refusal(self, call: Callable[[], Awaitable[T]]) -> T | Refusal:
        """Returns the response to a call, or its refusal."""

        async def called() -> T | Refusal:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                return refusal_of(error)

        return self.run(called())


@contextmanager
def services(product_database: str, order_database: str) -> Iterator[Services]:
    """Runs both services on these databases until the end of the block, in a thread with its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    both = Services(loop)
    stack = AsyncExitStack()

    async def start() -> None:
        both.products = await stack.enter_async_context(product_shop(product_database))
        folder = stack.enter_context(TemporaryDirectory())
        access: dict[str, Any] = both.issuer.in_file(Path(folder) / "keys.json")
        shop = await stack.enter_async_context(order_shop(order_database, both.products.address, **access))
        as_staff = grpc.aio.insecure_channel(shop.address, interceptors=senders(lambda: both.staff))
        as_given = grpc.aio.insecure_channel(shop.address)
        for channel in (as_staff, as_given):
            await stack.enter_async_context(channel)
        both.orders = replace(shop, orders=order_pb2_grpc.OrderServiceStub(as_staff))
        both.carts = cart_pb2_grpc.CartServiceStub(as_given)

    try:
        both.run(start())
        yield both
    finally:
        both.run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
