"""Channels between services: which calls are retried, and which replicas get calls."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import runtime.server
from runtime.client import RETRY, channel
from runtime.config import Env, ServerConfig
from runtime.server import Server
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.process import Telemetry
from tests.support.access import open_gate
from tests.support.dns import dns


@pytest.fixture
async def failing(free_port: int) -> AsyncIterator[tuple[str, list[int]]]:
    """Runs a service that accepts only the last attempt of a call. Yields its address and the attempts so far."""
    attempts: list[int] = []

    async def once_in_a_while(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        attempts.append(1)
        if len(attempts) < int(str(RETRY["maxAttempts"])):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(once_in_a_while)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Some", {"Call": handler}),))
    server.add_insecure_port(f"127.0.0.1:{free_port}")
    await server.start()
    yield f"dns:///127.0.0.1:{free_port}", attempts
    await server.stop(0)


async def test_idempotent_call_is_retried(failing: tuple[str, list[int]]) -> None:
    address, attempts = failing
    async with channel(address, idempotent=["test.Some"]) as to:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = to.unary_unary("/test.Some/Call")
        assert await call(b"x", timeout=10) == b"x"
    assert len(attempts) == RETRY["maxAttempts"]


async def test_other_call_is_not_retried(failing: tuple[str, list[int]]) -> None:
    address, attempts = failing
    async with channel(address, idempotent=["test.Other"]) as to:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = to.unary_unary("/test.Some/Call")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"x", timeout=10)
    assert len(attempts) == 1


class Replicas:
    """Two servers of one service, on one port of two loopback addresses."""

    def __init__(self, port: int) -> None:
        env = {"SHUTDOWN_DELAY": "1", "SHUTDOWN_GRACE": "1"}
        self.hosts = ("127.0.0.1", "127.0.0.2")
        self.port = port
        self.servers: list[Server] = []
        for host in self.hosts:
            variables = Env({**env, "LISTEN_HOST": host})
            telemetry = Telemetry(TelemetryConfig.from_env(variables), "test")
            server = Server(
                ServerConfig.from_env(variables, grpc_port=port), telemetry, open_gate("test.Some"), ["test.Some"]
            )

            async def who(request: bytes, context: object, host: str = host) -> bytes:
                await asyncio.sleep(0.002)
                return host.encode()

            handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Who": grpc.unary_unary_rpc_method_handler(who)}
            server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Some", handlers),))
            self.servers.append(server)
        self.target = "ipv4:" + ",".join(f"{host}:{port}" for host in self.hosts)


@pytest.fixture
async def replicas(free_port: int) -> AsyncIterator[Replicas]:
    made = Replicas(free_port)
    for server in made.servers:
        await server.start()
        await server.set_ready(True)
    yield made
    for server in made.servers:
        await server.stop()


async def answered(to: grpc.aio.Channel, calls: int = 20) -> set[str]:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = to.unary_unary("/test.Some/Who")
    return {(await call(b"", timeout=3)).decode() for _ in range(calls)}


async def becomes(to: grpc.aio.Channel, wanted: set[str]) -> None:
    async with asyncio.timeout(3):
        while await answered(to) != wanted:
            await asyncio.sleep(0.01)


async def test_replica_that_is_not_serving_gets_no_calls(replicas: Replicas) -> None:
    """It gets none from then on, although its connection stays open, and gets calls again once it is SERVING."""
    first, second = replicas.hosts
    async with channel(replicas.target) as to:
        await becomes(to, {first, second})
        await replicas.servers[0].set_ready(False)
        await asyncio.sleep(0.05)
        assert await answered(to) == {second}
        await replicas.servers[0].set_ready(True)
        await becomes(to, {first, second})


async def test_draining_replica_fails_no_call(replicas: Replicas) -> None:
    """A replica that shuts down is called until it closes its connections.

    Only then does a client ask DNS for others, and this one may be the only one that it knows.
    """
    first, second = replicas.hosts
    async with channel(replicas.target, idempotent=["test.Some"]) as to:
        await becomes(to, {first, second})
        draining = asyncio.create_task(replicas.servers[0].drain())
        await asyncio.sleep(0.05)
        began = time.process_time()
        assert await answered(to) == {first, second}
        await asyncio.sleep(0.6)
        assert time.process_time() - began < 0.2, "the client reopens Watch streams in a loop"
        await draining
        stopping = asyncio.create_task(replicas.servers[0].stop())
        await answered(to, 200)
        await stopping
        assert await answered(to) == {second}


async def test_replica_closing_under_load_fails_no_call(replicas: Replicas) -> None:
    """It cancels calls that it has received and not begun. The other replica gets them."""
    async with channel(replicas.target, idempotent=["test.Some"]) as to:
        await becomes(to, set(replicas.hosts))
        calling = [asyncio.create_task(answered(to, 150)) for _ in range(40)]
        await asyncio.sleep(0.2)
        await replicas.servers[0].stop()
        await asyncio.gather(*calling)


@pytest.fixture
def brief_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets servers end connections sooner, so that a test can wait for it."""
    age = "grpc.max_connection_age_ms"
    options = [(name, 1_000 if name == age else value) for name, value in runtime.server.OPTIONS]
    monkeypatch.setattr(runtime.server, "OPTIONS", options)


async def test_new_replica_gets_calls(brief_connections: None, replicas: Replicas) -> None:
    """A client finds it in DNS although no connection is lost. No call fails, not even if another one leaves DNS."""
    first, second = replicas.hosts
    async with dns(first) as names, channel(f"dns://127.0.0.1:{names.port}/replicas.test:{replicas.port}") as to:
        assert await answered(to) == {first}
        names.addresses.append(second)
        await becomes(to, {first, second})
        names.addresses.remove(first)
        await becomes(to, {second})


async def test_stream_outlives_the_age_of_its_connection(brief_connections: None, replicas: Replicas) -> None:
    first, _ = replicas.hosts
    async with dns(first) as names, channel(f"dns://127.0.0.1:{names.port}/replicas.test:{replicas.port}") as to:
        stub: Any = health_pb2_grpc.HealthStub(to)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        before = names.queries
        async with asyncio.timeout(5):
            while names.queries < before + 2:
                await answered(to, 1)
                await asyncio.sleep(0.01)
        assert not watch.done()


async def test_call_is_retried_until_a_replica_is_back(replicas: Replicas) -> None:
    """That is the case if the last known replica shuts down, and DNS has to learn of its successor."""
    async with channel(replicas.target, idempotent=["test.Some"]) as to:
        await becomes(to, set(replicas.hosts))
        for server in replicas.servers:
            await server.set_ready(False)
        await asyncio.sleep(0.05)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = to.unary_unary("/test.Some/Who")
        waiting = asyncio.create_task(_call(call))
        await asyncio.sleep(0.5)
        await replicas.servers[1].set_ready(True)
        assert await waiting == replicas.hosts[1].encode()


async def _call(call: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]") -> bytes:
    return await call(b"", timeout=3)


async def test_proxy_of_the_environment_is_ignored(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is for calls that leave the cluster."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = replicas.target.removeprefix("ipv4:").partition(",")[0]
    async with channel(f"dns:///{address}") as to:
        assert await answered(to, 1) == {replicas.hosts[0]}
