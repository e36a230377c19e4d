"""The honest client: what a customer, a page and a native client do, all the time, from an address of their own."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from bench.result import quantile
from tests.support.rest import Rest

PAUSE = 0.05
"""Seconds between two calls of a kind."""

TIMEOUT = 10.0
"""Seconds after which a call counts as failed."""


class Honest:
    """REST over a new connection for each call, gRPC over one that stays, new streams of every kind."""

    def __init__(self, target: str, product_id: str, certificate: Path | None = None, token: str = "") -> None:
        self._target, self._product = target, product_id
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._certificate = certificate
        self.seconds: list[float] = []
        self.errors: list[str] = []

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Calls until the end of the block."""
        url, verify = f"http://{self._target}", False if not self._certificate else _trust(self._certificate)
        if self._certificate:
            url = f"https://{self._target.replace('127.0.0.1', 'localhost')}"
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(
                base_url=url, verify=verify, limits=limits, timeout=TIMEOUT, headers=self._headers
            ) as http,
            self._channel() as channel,
        ):
            tasks = [asyncio.create_task(self._loop(kind)) for kind in self._kinds(http, channel)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def p50(self) -> float:
        return quantile(sorted(self.seconds), 0.5)

    @property
    def p99(self) -> float:
        return quantile(sorted(self.seconds), 0.99)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 200)]
        if self._certificate:
            trust = grpc.ssl_channel_credentials((self._certificate / "tls.crt").read_bytes())
            target = self._target.replace("127.0.0.1", "localhost")
            async with grpc.aio.secure_channel(target, trust, options=options) as channel:
                yield channel
        else:
            async with grpc.aio.insecure_channel(self._target, options=options) as channel:
                yield channel

    def _kinds(self, http: httpx.AsyncClient, channel: grpc.aio.Channel) -> list[Callable[[], Awaitable[None]]]:
        rest = Rest(http)
        orders: Any = order_pb2_grpc.OrderServiceStub(channel)
        products: Any = product_pb2_grpc.ProductServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        reflection_stub: Any = reflection_pb2_grpc.ServerReflectionStub
        reflection = reflection_stub(channel)
        metadata = tuple(self._headers.items())
        order_id = ""

        async def shopping() -> None:
            nonlocal order_id
            (await http.get("/api/v1/products?pageSize=20")).raise_for_status()
            order_id = (await rest.order(self._product))["id"]
            (await http.get(f"/api/v1/orders/{order_id}")).raise_for_status()

        async def filling_carts() -> None:
            made = (await http.post("/api/v1/carts", json={})).raise_for_status().json()
            cart, secret = f"/api/v1/carts/{made['cart']['id']}", made.get("secret")
            own = {"cart-secret": secret} if secret else {}
            body = {"productId": self._product, "quantity": 1}
            (await http.post(f"{cart}:add", json=body, headers=own)).raise_for_status()
            (await http.get(cart, headers=own)).raise_for_status()

        async def following() -> None:
            async with http.stream("GET", f"/api/orders/stream?order_id={order_id}") as answer:
                answer.raise_for_status()
                first = await anext(answer.aiter_text())
            if "PLACED" not in first:
                raise ValueError(f"a stream began with {first!r}")

        async def calling() -> None:
            await products.GetProduct(
                product_pb2.GetProductRequest(id=self._product), timeout=TIMEOUT, metadata=metadata
            )
            await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT, metadata=metadata)

        async def streaming() -> None:
            follow = order_pb2.StreamOrderStatusRequest(order_id=order_id)
            await _first(orders.StreamOrderStatus(follow, metadata=metadata))
            await _first(health.Watch(health_pb2.HealthCheckRequest(), metadata=metadata))
            call = reflection.ServerReflectionInfo(metadata=metadata)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services="*"))
            await _first(call)

        return [
            shopping,
            filling_carts,
            self._after(lambda: order_id, following),
            calling,
            self._after(lambda: order_id, streaming),
        ]

    @staticmethod
    def _after(ready: Callable[[], str], call: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def called() -> None:
            while not ready():
                await asyncio.sleep(PAUSE)
            await call()

        return called

    async def _loop(self, call: Callable[[], Awaitable[None]]) -> None:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(TIMEOUT):
                    await call()
            except grpc.aio.AioRpcError as error:
                self.errors.append(f"{error.code().name} {error.details()}")
            except httpx.HTTPStatusError as error:
                self.errors.append(f"{error.response.status_code} {error.request.method} {error.request.url.path[:20]}")
            except (httpx.HTTPError, TimeoutError, ValueError, AssertionError) as error:
                self.errors.append(f"{type(error).__name__} {error}")
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(PAUSE)


async def _first(call: Any) -> None:
    try:
        message = await call.read()
        if message is grpc.aio.EOF:
            raise ValueError(f"a stream ended at once: {await call.code()} {await call.details()}")
    finally:
        call.cancel()


def _trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate / "tls.crt"))
