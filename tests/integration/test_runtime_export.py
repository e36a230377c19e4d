"""Sending traces and metrics to a collector that hangs, refuses, or comes back."""

import asyncio
import gc
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from aiohttp import web

from local.settings import free_ports
from runtime.http import listen
from runtime.telemetry.export import CLOSE_TIMEOUT
from tests.support.access import credentials
from tests.support.black_hole import BlackHole
from tests.support.echo_server import EchoServer, echo_server
from tests.support.eventually import eventually

SAMPLED = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)

PROTOCOLS = ("grpc", "http/protobuf")


@pytest.fixture
async def black_hole() -> AsyncIterator[BlackHole]:
    async with BlackHole().running() as running:
        yield running


def send_to(endpoint: str, protocol: str, monkeypatch: pytest.MonkeyPatch, **more: str) -> dict[str, str]:
    """Sets the variables that the exporters read, and returns them."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **more,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


async def call(server: EchoServer, times: int = 1) -> float:
    """Calls the server as a caller whose trace is sampled. Returns the longest duration."""
    unary: Any = server.channel.unary_unary("/test.Echo/Unary")
    longest = 0.0
    for _ in range(times):
        start = time.perf_counter()
        await unary(b"x", metadata=SAMPLED)
        longest = max(longest, time.perf_counter() - start)
    return longest


def exporters() -> list[str]:
    """The threads that send."""
    return sorted(each.name for each in threading.enumerate() if each.name.startswith("Otel"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_collector_that_hangs_delays_neither_calls_nor_the_end(
    protocol: str, black_hole: BlackHole, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = send_to(
        black_hole.endpoint, protocol, monkeypatch, OTEL_BSP_MAX_QUEUE_SIZE="512", OTEL_EXPORTER_OTLP_TIMEOUT="6"
    )
    assert exporters() == []
    async with echo_server(free_port, **variables) as server:
        await call(server)
        # grpc sends both on one connection.
        await eventually(lambda: black_hole.connections >= (1 if protocol == "grpc" else 2))
        # More spans than the queue has room for.
        assert await call(server, 1_500) < 0.5
        assert len(exporters()) == 2
        start = time.monotonic()
    # The server's own end takes a part of a second.
    assert time.monotonic() - start < CLOSE_TIMEOUT + 1
    # A request over HTTP cannot be cut short: its thread ends at its own timeout, and keeps no process from ending.
    await eventually(lambda: exporters() == [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_collector_that_is_away_is_logged_once(
    protocol: str, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    variables = send_to(f"http://127.0.0.1:{port}", protocol, monkeypatch, OTEL_EXPORTER_OTLP_TIMEOUT="0.2")
    caplog.set_level(logging.INFO)
    async with echo_server(free_port, **variables) as server:
        await call(server, 10)
        await eventually(lambda: len(lines(caplog)) == 2)
        before = resources()
        for _ in range(20):
            await call(server, 10)
            await asyncio.sleep(0.1)
        gc.collect()
        assert len(lines(caplog)) == 2, "further failures are not logged"
        after = resources()
        assert after[0] <= before[0] + 3, "no thread is left behind"
        assert after[1] <= before[1] + 6, "no connection is left behind"
        first = sorted(lines(caplog))
        async with collector(protocol, port):
            await call(server)
            await eventually(lambda: len(lines(caplog)) == 4)
            await call(server, 10)
            await asyncio.sleep(0.5)
        assert sorted(lines(caplog)[2:]) == ["metrics reach the collector again", "traces reach the collector again"]
    assert [text.split(":")[0] for text in first] == [
        "metrics do not reach the collector",
        "traces do not reach the collector",
    ]
    assert all(re.search("refused", text) for text in first) or protocol != "grpc", first


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_collector_that_hangs_keeps_no_process_from_ending(
    protocol: str, black_hole: BlackHole, free_port: int
) -> None:
    variables = {
        "LISTEN_HOST": "127.0.0.1",
        "GRPC_PORT": str(free_port),
        "SHUTDOWN_DELAY": "0",
        "INTERNAL_CREDENTIALS": str(credentials()),
        "DATABASE_URL": "host=127.0.0.1 port=1 user=product password=none dbname=product",
        "OTEL_EXPORTER_OTLP_ENDPOINT": black_hole.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "DATABASE_", "PG"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "product", env=inherited | variables, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await eventually(lambda: black_hole.received)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert time.monotonic() - start < CLOSE_TIMEOUT + 2
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def resources() -> tuple[int, int]:
    """How many threads and open files this process has."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    senders = ("runtime.telemetry.export", "opentelemetry.exporter", "opentelemetry.sdk")
    return [each.getMessage() for each in caplog.records if each.name.startswith(senders)]


@asynccontextmanager
async def collector(protocol: str, port: int) -> AsyncIterator[None]:
    """Runs a collector that accepts everything, until the end of the block."""
    if protocol == "grpc":
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Accept(),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        yield
        await server.stop(0)
        return

    async def accept(request: web.Request) -> web.Response:
        return web.Response()

    application = web.Application()
    application.router.add_post("/{path:.*}", accept)
    runner = web.AppRunner(application, access_log=None)
    try:
        await listen(runner, "127.0.0.1", port)
        yield
    finally:
        await runner.cleanup()


class _Accept(grpc.GenericRpcHandler):
    def service(self, handler_call_details: object) -> Any:
        async def accept(request: bytes, context: object) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(accept)
