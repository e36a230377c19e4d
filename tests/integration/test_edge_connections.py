"""A client's connection takes requests for a time only, so that the client uses all pods of the edge. Nothing fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from tests.support.edge import Edge, edge
from tests.support.sidecar import EVENTS, Blocks, sidecar

MAX_AGE = 1
"""Seconds that a connection takes requests here."""

TRAFFIC_TIME = 4.0
"""Seconds of requests."""

CALLERS = 4
"""Requests at a time. With HTTP/1.1, each has a connection of its own."""

CONNECTIONS = "http.edge.downstream_cx_total"
"""Envoy's counter of connections from clients."""


async def repeat(call: Callable[[], Awaitable[object]]) -> None:
    """Makes calls for TRAFFIC_TIME. Raises what a call raises."""
    end = time.monotonic() + TRAFFIC_TIME

    async def repeat_alone() -> None:
        while time.monotonic() < end:
            await call()
            await asyncio.sleep(0.02)  # far below the edge's limit of requests

    await asyncio.gather(*(repeat_alone() for _ in range(CALLERS)))


async def read_product(shop: Edge, channel: grpc.aio.Channel) -> None:
    stub = product_pb2_grpc.ProductServiceStub(channel)
    await repeat(lambda: stub.GetProduct(product_pb2.GetProductRequest(id="abc"), timeout=5))


async def test_grpc_client_changes_its_connection() -> None:
    async with edge(max_connection_age=MAX_AGE) as shop, grpc.aio.insecure_channel(shop.target) as channel:
        await read_product(shop, channel)
        assert await shop.stat(CONNECTIONS) >= 3


async def test_http_client_changes_its_connections() -> None:
    async with edge(max_connection_age=MAX_AGE) as shop, httpx.AsyncClient(base_url=shop.url, timeout=5) as http:

        async def read() -> None:
            assert (await http.get("/api/v1/products/abc")).status_code == 200

        await repeat(read)
        assert await shop.stat(CONNECTIONS) >= 3 * CALLERS


async def test_connections_last_without_a_maximum() -> None:
    async with edge(max_connection_age=0) as shop, grpc.aio.insecure_channel(shop.target) as channel:
        await read_product(shop, channel)
        assert await shop.stat(CONNECTIONS) == 1


async def test_event_stream_outlives_the_age_of_its_connection() -> None:
    async with (
        sidecar() as running,
        edge(max_connection_age=MAX_AGE, sse_http_port=running.sidecar.http_port) as shop,
        httpx.AsyncClient(base_url=shop.url, timeout=10) as http,
    ):
        order_id = running.logs.place("PLACED")
        async with http.stream("GET", f"/api/orders/stream?order_id={order_id}", headers=EVENTS) as response:
            stream = Blocks(response)
            assert (await stream.next()).startswith("id: 1\n")
            await asyncio.sleep(TRAFFIC_TIME)
            running.logs.add(order_id, "PROCESSED")
            assert (await stream.next()).startswith("id: 2\n")


async def test_grpc_stream_outlives_the_age_of_its_connection() -> None:
    """It does not keep its channel from opening another connection for other calls."""
    async with edge(max_connection_age=MAX_AGE) as shop, grpc.aio.insecure_channel(shop.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await read_product(shop, channel)
        assert await shop.stat(CONNECTIONS) >= 3
        assert not watch.done()
