"""How a pod of the edge goes away: the drain before its SIGTERM, then the sidecar's end."""

import asyncio
import sys
import time

import httpx
import pytest
from grpc_health.v1 import health_pb2

from local.settings import REPOSITORY
from sse.gateway.drain import drain
from tests.support.echo import PRODUCT
from tests.support.edge import edge
from tests.support.eventually import eventually
from tests.support.rest import Rest
from tests.support.sidecar import EVENTS, Blocks, sidecar

LISTENERS = ("--drain-strategy", "immediate", "--drain-time-s", "1")
"""As the chart starts Envoy; there it is the grace."""


async def test_calls_under_way_are_finished_and_streams_end_last() -> None:
    async with sidecar() as running, edge(*LISTENERS, sse_http_port=running.sidecar.http_port) as shop:
        order_id = running.logs.place("PLACED")
        async with (
            httpx.AsyncClient(base_url=shop.url, timeout=10) as http,
            http.stream("GET", f"/api/orders/stream?order_id={order_id}", headers=EVENTS) as response,
        ):
            stream = Blocks(response)
            await stream.next()
            slow = asyncio.create_task(http.get("/api/v1/products/slow"))  # two seconds
            await asyncio.sleep(0.3)
            began = time.monotonic()
            admin = shop.admin.rpartition(":")[2]
            command = [
                sys.executable,
                "-m",
                "sse.gateway.drain",
                "--admin-port",
                admin,
                "--delay",
                "0.5",
                "--grace",
                "10",
            ]
            environment = {"HTTP_PORT": str(running.sidecar.http_port)}
            draining = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY, env=environment)
            await asyncio.sleep(0.3)
            assert (await http.get("/healthz")).status_code == 503, "whoever balances looks elsewhere"
            answer = await http.get("/api/v1/products/abc")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close"), "until it has done so"

            assert await draining.wait() == 0
            assert 1.5 < time.monotonic() - began < 5, "it waits for calls, and for nothing else"
            assert (await slow).status_code == 200

            async def closed() -> bool:
                try:
                    await http.get("/api/v1/products/abc")
                except httpx.ConnectError:
                    return True
                return False

            await eventually(closed)
            running.logs.add(order_id, "PROCESSED")
            assert (await stream.next()).startswith("id: 2\n"), "streams live on"
            await running.sidecar.connections.drain()
            (last,) = await stream.rest()
            assert last.startswith("retry: "), "each browser comes back, to another pod"


async def test_service_that_says_it_is_not_serving_gets_nothing() -> None:
    """Not even where no other one is there: half of all ill is a panic to Envoy, which then asks everybody."""
    async with edge() as running, httpx.AsyncClient(base_url=running.url, timeout=5) as http:
        assert (await http.get("/api/v1/products/abc")).status_code == 200
        await running.calls.checks[PRODUCT].set(PRODUCT, health_pb2.HealthCheckResponse.NOT_SERVING)

        async def refused() -> bool:
            return (await http.get("/api/v1/products/abc")).status_code == 503

        await eventually(refused)
        running.calls.count.clear()
        for _ in range(20):
            Rest.refused(await http.get("/api/v1/products/abc"), 503, 14)
        assert not running.calls.count
        assert (await http.get("/api/v1/orders/abc")).status_code == 200
        await running.calls.checks[PRODUCT].set(PRODUCT, health_pb2.HealthCheckResponse.SERVING)

        async def answered() -> bool:
            return (await http.get("/api/v1/products/abc")).status_code == 200

        await eventually(answered)


def test_without_an_envoy_the_drain_fails_at_once() -> None:
    with pytest.raises(OSError, match="refused"):
        drain(1, 0, 0)
