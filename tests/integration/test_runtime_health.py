"""The health of a process: liveness, readiness, and what clients see while it shuts down."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2

from runtime import server
from runtime.health import LastingProblem
from tests.support.echo_server import EchoServer, echo_server
from tests.support.eventually import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def running(free_port: int) -> AsyncIterator[EchoServer]:
    async with echo_server(free_port) as server:
        yield server


async def test_short_outage_keeps_the_service_ready(running: EchoServer) -> None:
    problem = "the database is unavailable"
    checked = asyncio.Event()

    async def check() -> str:
        checked.set()
        return problem

    watching = asyncio.create_task(running.server.watch(check))
    await checked.wait()
    assert await running.check("liveness") == SERVING
    assert await running.check("") == await running.check("test.Echo") == NOT_SERVING
    problem = ""
    await status_becomes(running, "test.Echo", SERVING)
    problem = "a short outage"
    for _ in range(2):  # the first check may have begun before the outage
        checked.clear()
        await checked.wait()
    assert await running.check("") == SERVING, "a short outage must not empty DNS"
    watching.cancel()


async def test_draining_server_still_accepts_calls(running: EchoServer) -> None:
    await running.server.set_ready(True)
    await running.server.drain()
    assert await running.check("test.Echo") == NOT_SERVING
    assert await running.unary(b"hello") == b"hello"


async def test_watch_sends_each_change_of_health(running: EchoServer) -> None:
    call = running.health.Watch(health_pb2.HealthCheckRequest(service="test.Echo"))
    assert (await call.read()).status == NOT_SERVING
    await running.server.set_ready(True)
    assert (await call.read()).status == SERVING
    await running.server.set_ready(False)
    assert (await call.read()).status == NOT_SERVING
    call.cancel()


async def test_watch_stream_ends_at_shutdown(running: EchoServer) -> None:
    call = running.health.Watch(health_pb2.HealthCheckRequest(service="test.Echo"))
    await running.server.set_ready(True)
    assert (await call.read()).status == SERVING
    await running.server.drain()
    assert (await call.read()).status == NOT_SERVING
    assert await running.check("liveness") == SERVING
    stopping = asyncio.create_task(running.server.stop())
    async with asyncio.timeout(0.5):  # half of the grace period
        assert await call.read() is grpc.aio.EOF
        await stopping


async def test_watch_stays_open_while_draining(running: EchoServer) -> None:
    """Otherwise a client that balances by health would reopen it in a loop."""
    call = running.health.Watch(health_pb2.HealthCheckRequest(service="test.Echo"))
    assert (await call.read()).status == NOT_SERVING
    await running.server.drain()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.read(), 0.3)


async def test_lasting_problem_ends_readiness_at_once(running: EchoServer) -> None:
    problem = ""

    async def check() -> str:
        return problem

    watching = asyncio.create_task(running.server.watch(check))
    try:
        await status_becomes(running, "test.Echo", SERVING)
        problem = LastingProblem("password authentication failed")
        await status_becomes(running, "test.Echo", NOT_SERVING)
        problem = ""
        await status_becomes(running, "test.Echo", SERVING)
    finally:
        watching.cancel()


async def status_becomes(running: EchoServer, name: str, status: int) -> None:
    async def is_reached() -> bool:
        return await running.check(name) == status

    await eventually(is_reached, 3)


@pytest.mark.parametrize("others", [True, False])
async def test_readiness_is_delayed_if_there_are_peers(
    free_port: int, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """The health of the service itself, which clients watch, is not delayed."""

    async def has_peers(name: str) -> bool:
        return others and name == "shop-test"

    monkeypatch.setattr(server, "has_peers", has_peers)
    monkeypatch.setattr(server, "READINESS_INTERVAL", 0.02)
    problem = ""

    async def check() -> str:
        return problem

    clock = asyncio.get_running_loop().time
    async with echo_server(free_port, READY_DELAY="0.6", PEERS="shop-test") as running:
        began = clock()
        watching = asyncio.create_task(running.server.watch(check))
        await status_becomes(running, "test.Echo", SERVING)
        await status_becomes(running, "readiness", SERVING)
        assert (clock() - began >= 0.6) == others
        # The delay applies only to the first time.
        problem = LastingProblem("refused")
        await status_becomes(running, "readiness", NOT_SERVING)
        problem = ""
        began = clock()
        await status_becomes(running, "readiness", SERVING)
        assert clock() - began < 0.6
        watching.cancel()


async def test_services_serve_before_kubernetes_is_told(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def has_peers(name: str) -> bool:
        return True

    async def check() -> str:
        return ""

    monkeypatch.setattr(server, "has_peers", has_peers)
    async with echo_server(free_port, READY_DELAY="300", PEERS="shop-test") as running:
        watching = asyncio.create_task(running.server.watch(check))
        await status_becomes(running, "test.Echo", SERVING)
        assert await running.check("readiness") == NOT_SERVING
        watching.cancel()
