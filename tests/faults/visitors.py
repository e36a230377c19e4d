"""Some customers at the edge, and staff, who go on whatever happens. Errors are counted, not retried."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import grpc
import httpx
from shop.order.v1 import order_pb2, order_pb2_grpc

from local.settings import LOOPBACK
from runtime.client import channel
from tests.faults.edge_shop import EdgeShop
from tests.support.access import bearer, senders
from tests.support.order import create_request
from tests.support.rest import Rest

CALL_TIMEOUT = 8.0
"""Seconds that a visitor waits for a response."""

PAUSE = 0.2
"""Seconds between two visits of one visitor."""

FOLLOW_TIME = 12.0
"""Seconds that a browser follows an order: longer than faults of the feed last."""

WATCHERS = 3
"""Browsers that follow an order."""


class Visitors:
    """All visitors."""

    def __init__(self, shop: EdgeShop, crowd: int) -> None:
        """`crowd` is how many customers there are, and how many of staff."""
        self._shop = shop
        self._crowd = crowd
        self._token = shop.issuer.token("staff", staff=True)
        self.headers = {"authorization": f"Bearer {self._token}"}
        """The headers of their requests."""
        self.outcomes: Counter[str] = Counter()
        """What the visits came to, such as `shopping: OK`."""
        self.product_id = ""
        """The product that they order."""
        self.last_order = ""
        """The id of the last order that a customer has placed."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Visitors"]:
        """Lets them come until the end of the block."""
        limits = httpx.Limits(max_connections=None)
        replica = f"ipv4:{LOOPBACK}:{self._shop.orders[1]}"
        async with (
            httpx.AsyncClient(
                base_url=self._shop.url, timeout=CALL_TIMEOUT, headers=self.headers, limits=limits, verify=False
            ) as http,
            channel(replica, senders(lambda: bearer(self._token))) as to_order,
        ):
            self.product_id = (await Rest(http).product(stock=1_000_000))["id"]
            self.last_order = (await Rest(http).order(self.product_id))["id"]
            orders: Any = order_pb2_grpc.OrderServiceStub(to_order)
            visits = [lambda: self._shop_online(http), lambda: self._serve_customers(orders)]
            tasks = [asyncio.create_task(self._repeat(each)) for each in visits for _ in range(self._crowd)]
            tasks += [asyncio.create_task(self._repeat(lambda: self._follow(http))) for _ in range(WATCHERS)]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, visit: Callable[[], Awaitable[str]]) -> None:
        while True:
            try:
                outcome = await visit()
            except grpc.aio.AioRpcError as error:
                outcome = error.code().name
            except (httpx.HTTPError, TimeoutError, AssertionError) as error:
                outcome = type(error).__name__
            self.outcomes[outcome] += 1
            await asyncio.sleep(PAUSE)

    async def _shop_online(self, http: httpx.AsyncClient) -> str:
        """Looks at the catalogue, orders, and looks at the order."""
        (await http.get("/api/v1/products?pageSize=20")).raise_for_status()
        self.last_order = (await Rest(http).order(self.product_id))["id"]
        (await http.get(f"/api/v1/orders/{self.last_order}")).raise_for_status()
        return "OK"

    async def _serve_customers(self, orders: Any) -> str:
        """Takes an order by phone, and cancels it."""
        request = create_request({self.product_id: 1}, request_id=str(uuid4()))
        order = await orders.CreateOrder(request, timeout=CALL_TIMEOUT)
        await orders.CancelOrder(order_pb2.CancelOrderRequest(id=order.id), timeout=CALL_TIMEOUT)
        return "OK"

    async def _follow(self, http: httpx.AsyncClient) -> str:
        """Follows the last order for some seconds, as a page does."""
        url = f"/api/orders/stream?order_id={self.last_order}"
        accept = {"accept": "text/event-stream"}
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_TIME), http.stream("GET", url, headers=accept) as got:
                got.raise_for_status()
                async for _ in got.aiter_raw():
                    pass
        return "OK"
