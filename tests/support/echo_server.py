"""A gRPC server with one service, `test.Echo`, that fails on request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime import errors
from runtime.config import Env, ServerConfig
from runtime.server import Server
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.process import Telemetry
from tests.support.access import open_gate


class Boom(RuntimeError):
    """An exception whose text no client may see."""


async def unary(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    match request:
        case b"reason":
            raise errors.with_reason(
                grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", "only 2 left", available="2"
            )
        case b"field":
            raise errors.invalid_argument([("items", "must not be empty")])
        case b"later":
            raise errors.unavailable("try later", 1.5)
        case b"boom":
            raise Boom("password=s3cret")
        case b"sleep":
            await asyncio.sleep(60)
            return request
        case _:
            return request


async def stream(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
    yield b"one"
    if request == b"boom":
        raise Boom("password=s3cret")
    if request == b"reason":
        raise errors.with_reason(grpc.StatusCode.ABORTED, "ORDER_EXPIRED", "too late")


def register(servicer: object, server: Any) -> None:
    """Registers the service, as generated code does."""
    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    server.add_registered_method_handlers("test.Echo", handlers)


class EchoServer:
    """The server, and a channel to it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    async def unary(self, request: bytes, timeout: float | None = None) -> bytes:
        call: Any = self.channel.unary_unary("/test.Echo/Unary")
        answer: bytes = await call(request, timeout=timeout)
        return answer

    def stream(self, request: bytes) -> Any:
        call: Any = self.channel.unary_stream("/test.Echo/Stream")
        return call(request)

    async def check(self, name: str) -> int:
        answer: Any = await self.health.Check(health_pb2.HealthCheckRequest(service=name))
        status: int = answer.status
        return status


@asynccontextmanager
async def echo_server(free_port: int, **variables: str) -> AsyncIterator[EchoServer]:
    env = Env({"LISTEN_HOST": "127.0.0.1", "SHUTDOWN_DELAY": "0", "SHUTDOWN_GRACE": "1", **variables})
    telemetry = Telemetry(TelemetryConfig.from_env(env), "test")
    async with telemetry.serving("127.0.0.1"):
        made = Server(ServerConfig.from_env(env, grpc_port=free_port), telemetry, open_gate("test.Echo"), ["test.Echo"])
        made.add(register, None)
        await made.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
            yield EchoServer(made, channel)
        await made.stop()
