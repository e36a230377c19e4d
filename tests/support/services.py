"""Both services for code that is not asynchronous, as Hypothesis is not."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

import grpc

from tests.support.order import OrderShop, order_shop
from tests.support.product import ProductShop, Refusal, product_shop, refusal_of

T = TypeVar("T")


class Services:
    """Both services, and a way to call them from code that is not asynchronous."""

    products: ProductShop
    orders: OrderShop

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

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
        both.orders = await stack.enter_async_context(order_shop(order_database, both.products.address))

    try:
        both.run(start())
        yield both
    finally:
        both.run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
