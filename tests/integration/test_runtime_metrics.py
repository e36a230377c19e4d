"""What a server measures of its calls, as Prometheus reads it."""

import asyncio
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import grpc
import httpx
import pytest

from local.settings import free_ports
from runtime.config import Env
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.process import Telemetry
from tests.support.echo_server import EchoServer, echo_server
from tests.support.eventually import eventually
from tests.support.metrics import Scrape, scrape

DURATION = "rpc_server_call_duration_seconds"


Get = Callable[[int], Awaitable[str]]
"""Returns the text of `/metrics` on a port."""


@asynccontextmanager
async def scraper() -> AsyncIterator[Get]:
    """A client that costs less than those that it disturbs."""
    async with aiohttp.ClientSession() as http:

        async def get(port: int) -> str:
            async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                return await response.text()

        yield get


@pytest.fixture
def metrics_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
async def measured(free_port: int, metrics_port: int) -> AsyncIterator[EchoServer]:
    async with echo_server(free_port, METRICS_PORT=str(metrics_port)) as running:
        yield running


async def test_calls_are_counted_by_method_and_code(measured: EchoServer, metrics_port: int) -> None:
    await measured.unary(b"x")
    await measured.unary(b"x")
    with pytest.raises(grpc.aio.AioRpcError):
        await measured.unary(b"reason")
    seen = await scrape(metrics_port)
    labels = {"rpc_system_name": "grpc", "rpc_method": "test.Echo/Unary"}
    assert seen.value(f"{DURATION}_count", **labels, rpc_response_status_code="OK") == 2
    assert seen.value(f"{DURATION}_count", **labels, rpc_response_status_code="FAILED_PRECONDITION") == 1
    assert 0 < seen.value(f"{DURATION}_sum", **labels) < 3
    assert seen.value("shop_rpc_server_active_calls", rpc_method="test.Echo/Unary") == 0


async def test_call_past_its_deadline_is_not_a_cancelled_one(measured: EchoServer, metrics_port: int) -> None:
    """Otherwise a service that responds too late would show no error."""
    with pytest.raises(grpc.aio.AioRpcError):
        await measured.unary(b"sleep", timeout=0.2)
    leaving = asyncio.create_task(measured.unary(b"sleep", timeout=60))
    await asyncio.sleep(0.2)
    leaving.cancel()

    async def ended() -> dict[str, float]:
        seen = await scrape(metrics_port)
        return {
            code: seen.value(f"{DURATION}_count", rpc_method="test.Echo/Unary", rpc_response_status_code=code)
            for code in ("DEADLINE_EXCEEDED", "CANCELLED")
        }

    async with asyncio.timeout(5):
        while sum((codes := await ended()).values()) < 2:
            await asyncio.sleep(0.1)
    assert codes == {"DEADLINE_EXCEEDED": 1, "CANCELLED": 1}


async def test_only_metrics_are_served(measured: EchoServer, metrics_port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{metrics_port}") as http:
        assert (await http.get("/metrics")).headers["content-type"].startswith("text/plain")
        assert (await http.get("/")).status_code == 404
        assert (await http.post("/metrics")).status_code == 405


async def test_invented_formats_do_not_queue_up(measured: EchoServer, metrics_port: int) -> None:
    """A collection takes its turn, so one for each version that a client invents would keep Prometheus waiting."""
    async with aiohttp.ClientSession() as http:

        async def get(accept: str) -> str:
            async with http.get(f"http://127.0.0.1:{metrics_port}/metrics", headers={"Accept": accept}) as response:
                await response.read()
                return response.headers["Content-Type"]

        start = time.monotonic()
        types = await asyncio.gather(*(get(f"application/openmetrics-text; version=9.{n}") for n in range(50)))
        assert time.monotonic() - start < 2
    assert len(set(types)) == 1


async def test_taken_port_is_a_clear_error(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        telemetry = Telemetry(TelemetryConfig.from_env(Env({"METRICS_PORT": str(free_port)})), "test")
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{free_port}"):
            async with telemetry.serving("127.0.0.1"):
                pass


async def test_scrapes_at_the_same_time_share_a_collection(metrics_port: int) -> None:
    telemetry = Telemetry(TelemetryConfig.from_env(Env({"METRICS_PORT": str(metrics_port)})), "test")
    collections = 0

    def read() -> int:
        nonlocal collections
        collections += 1
        return collections

    telemetry.metrics.gauge("test.collections", read, "How often metrics were collected.")
    async with telemetry.serving("127.0.0.1"), scraper() as get:
        before = Scrape.of(await get(metrics_port)).value("test_collections")
        seen = [Scrape.of(text) for text in await asyncio.gather(*(get(metrics_port) for _ in range(50)))]
    assert collections - before <= 5
    # Nobody gets what was collected before they asked.
    assert all(each.value("test_collections") > before for each in seen)


async def test_scrape_during_a_collection_waits_for_the_next(metrics_port: int) -> None:
    telemetry = Telemetry(TelemetryConfig.from_env(Env({"METRICS_PORT": str(metrics_port)})), "test")
    collecting = threading.Event()
    value = 1

    def read() -> int:
        before = value
        collecting.set()
        time.sleep(0.3)
        return before

    telemetry.metrics.gauge("test.value", read, "A value that changes during a collection.")
    async with telemetry.serving("127.0.0.1"), scraper() as get:
        first = asyncio.ensure_future(get(metrics_port))
        await eventually(collecting.is_set)
        value = 2
        assert Scrape.of(await get(metrics_port)).value("test_value") == 2
        assert Scrape.of(await first).value("test_value") == 1


async def test_calls_hardly_feel_fifty_scrapers(measured: EchoServer, metrics_port: int) -> None:
    end = asyncio.Event()
    scrapes = 0

    async def scrape_all_the_time(get: Get) -> None:
        nonlocal scrapes
        while not end.is_set():
            await get(metrics_port)
            scrapes += 1

    async with scraper() as get:
        scrapers = [asyncio.create_task(scrape_all_the_time(get)) for _ in range(50)]
        await eventually(lambda: scrapes >= 50)
        durations: list[float] = []
        while scrapes < 500:
            start = time.perf_counter()
            await measured.unary(b"x")
            durations.append(time.perf_counter() - start)
        end.set()
        await asyncio.gather(*scrapers)
    assert statistics.median(durations) < 0.02
