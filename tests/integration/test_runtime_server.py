"""The gRPC server of every process: how errors reach clients, and what limits and dead peers do."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, TrailersReceived
from h2.settings import SettingCodes
from shop.product.v1 import product_pb2

from local.settings import free_ports
from runtime import errors, server
from runtime.config import Env, ServerConfig
from runtime.guard import Guarded
from runtime.limits import ResponseLimit
from runtime.server import Server
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.process import Telemetry
from tests.support.access import open_gate
from tests.support.echo_server import EchoServer, echo_server
from tests.support.eventually import eventually
from tests.support.proxy import Proxy


@pytest.fixture
async def running(free_port: int) -> AsyncIterator[EchoServer]:
    async with echo_server(free_port) as server:
        yield server


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    return errors.parse_rpc_error(error)[2]


async def test_reason_and_metadata_reach_the_client(running: EchoServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary(b"reason")
    code, reason, status = errors.parse_rpc_error(caught.value)
    assert (code, reason, status.message) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_STOCK",
        "only 2 left",
    )
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, dict(info.metadata)) == ("shop", {"available": "2"})


async def test_field_violation_reaches_the_client(running: EchoServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary(b"field")
    bad = error_details_pb2.BadRequest()
    assert status_of(caught.value).details[0].Unpack(bad)
    assert bad.field_violations[0].field == "items"


async def test_transient_error_says_when_to_retry(running: EchoServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary(b"later")
    retry = error_details_pb2.RetryInfo()
    assert status_of(caught.value).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


async def test_exception_becomes_internal_without_its_text(
    running: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary(b"boom")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert any(entry.exc_info for entry in caplog.records if entry.levelno == logging.ERROR)


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [(b"boom", grpc.StatusCode.INTERNAL, "internal error"), (b"reason", grpc.StatusCode.ABORTED, "too late")],
)
async def test_failed_stream_ends_with_its_status(
    running: EchoServer, request_: bytes, code: grpc.StatusCode, text: str
) -> None:
    call = running.stream(request_)
    assert await call.read() == b"one"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), caught.value.details()) == (code, text)


async def test_unknown_method_is_unimplemented(running: EchoServer) -> None:
    call: Any = running.channel.unary_unary("/test.Echo/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_unread_large_responses_are_limited() -> None:
    """The bytes of one caller and of all callers are limited. Small responses are not."""

    async def page(request: product_pb2.ListProductsRequest, context: Any) -> product_pb2.Product:
        return product_pb2.Product(description="x" * request.page_size)

    method = grpc.unary_unary_rpc_method_handler(
        page, product_pb2.ListProductsRequest.FromString, product_pb2.Product.SerializeToString
    )
    served = grpc.aio.server()
    limit = ResponseLimit(total=500_000, per_caller=300_000)
    Guarded(served, open_gate("test.Pages"), limit).add_registered_method_handlers("test.Pages", {"Page": method})
    port = served.add_insecure_port("127.0.0.1:0")
    await served.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    names = {":method": "POST", ":scheme": "http", ":authority": "shop", ":path": "/test.Pages/Page"}

    def ask(size: int, caller: str) -> None:
        stream = h2.get_next_available_stream_id()
        message = product_pb2.ListProductsRequest(page_size=size).SerializeToString()
        more = [("content-type", "application/grpc"), ("te", "trailers"), ("x-envoy-external-address", caller)]
        h2.send_headers(stream, [*names.items(), *more])
        h2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        writer.write(h2.data_to_send())

    async def status() -> str:
        """Returns the message of the next refusal. Other responses wait for the client to read them."""
        async with asyncio.timeout(5):
            while True:
                for event in h2.receive_data(await reader.read(65_536)):
                    if isinstance(event, ResponseReceived | TrailersReceived):
                        found = {bytes(key): bytes(value) for key, value in event.headers or ()}
                        if b"grpc-status" in found:
                            return found[b"grpc-message"].decode()

    for _ in range(3):
        ask(140_000, "a")
    assert await status() == "too many large responses are waiting to be read by this caller"
    ask(150_000, "b")
    ask(150_000, "c")
    assert await status() == "too many large responses are waiting to be read"
    writer.close()
    await writer.wait_closed()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/test.Pages/Page", product_pb2.ListProductsRequest.SerializeToString)
        await eventually(lambda: _sends_large_responses(call), 5)
    await served.stop(None)


async def _sends_large_responses(call: Any) -> bool:
    """Returns whether large responses are sent. Those of a client that has left do not count any more."""
    try:
        for _ in range(5):
            await call(product_pb2.ListProductsRequest(page_size=100_000))
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_silently_dead_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its calls would be kept for two hours. The test uses the shortest times that grpc allows."""
    times = {
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.http2.ping_timeout_ms": 10_000,
    }
    assert times.items() <= dict(server.OPTIONS).items()
    monkeypatch.setattr(server, "OPTIONS", [(key, 1_000 if key in times else value) for key, value in server.OPTIONS])
    left = asyncio.Event()

    async def wait(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    handlers = grpc.method_handlers_generic_handler("test.Echo", {"Stream": grpc.unary_stream_rpc_method_handler(wait)})
    env = Env({"LISTEN_HOST": "127.0.0.1", "SHUTDOWN_GRACE": "0"})
    (port,) = free_ports(1)
    started = Server(
        ServerConfig.from_env(env, grpc_port=port), Telemetry(TelemetryConfig.from_env(env), "test"), open_gate(), []
    )
    started.grpc.add_generic_rpc_handlers((handlers,))
    await started.start()
    async with Proxy(port).running() as proxy, grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        call: Any = channel.unary_stream("/test.Echo/Stream")
        stream = call(b"")
        assert await stream.read() == b"one"
        await asyncio.sleep(3.5)
        assert not left.is_set(), "a live peer responds to pings"
        proxy.hang()
        await asyncio.wait_for(left.wait(), 10)
        stream.cancel()
    await started.stop()


async def test_taken_port_is_one_clear_error(running: EchoServer, free_port: int) -> None:
    env = Env({"LISTEN_HOST": "127.0.0.1"})
    second = Server(
        ServerConfig.from_env(env, grpc_port=free_port),
        Telemetry(TelemetryConfig.from_env(env), "test"),
        open_gate(),
        [],
    )
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{free_port}"):
        await second.start()


async def test_failed_call_logs_a_structured_line(running: EchoServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shop.rpc"), pytest.raises(grpc.aio.AioRpcError):
        await running.unary(b"reason")
    line = vars(next(entry for entry in caplog.records if entry.name == "shop.rpc"))
    assert (line["method"], line["code"], line["error"]) == ("test.Echo/Unary", "FAILED_PRECONDITION", "only 2 left")
