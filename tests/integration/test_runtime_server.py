"""The gRPC server that every process uses: errors, reflection, health and the orderly end."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, TrailersReceived
from h2.settings import SettingCodes
from shop.product.v1 import product_pb2

from local.settings import free_ports
from runtime import errors, server
from runtime.config import Env, ServerConfig, TelemetryConfig
from runtime.guard import Guarded
from runtime.health import LastingProblem
from runtime.limits import ResponseLimit
from runtime.server import Server
from runtime.telemetry import Telemetry
from tests.support.eventually import eventually
from tests.support.proxy import Proxy

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Boom(RuntimeError):
    """Something that a client must not hear of."""


async def unary(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    match request:
        case b"reason":
            raise errors.failed_precondition("INSUFFICIENT_STOCK", "only 2 left", available="2")
        case b"field":
            raise errors.invalid_argument([("items", "must not be empty")])
        case b"later":
            raise errors.unavailable("try later", 1.5)
        case b"boom":
            raise Boom("password=s3cret")
        case _:
            return request


async def stream(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
    yield b"one"
    if request == b"boom":
        raise Boom("password=s3cret")
    if request == b"reason":
        raise errors.aborted("ORDER_EXPIRED", "too late")


def register(servicer: object, server: Any) -> None:
    """As generated code does it."""
    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    server.add_registered_method_handlers("test.Echo", handlers)


class Running:
    """A server on a free port and a channel to it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    async def unary(self, request: bytes) -> bytes:
        call: Any = self.channel.unary_unary("/test.Echo/Unary")
        answer: bytes = await call(request)
        return answer

    def stream(self, request: bytes) -> Any:
        call: Any = self.channel.unary_stream("/test.Echo/Stream")
        return call(request)

    async def check(self, name: str) -> int:
        answer: Any = await self.health.Check(health_pb2.HealthCheckRequest(service=name))
        status: int = answer.status
        return status


@pytest.fixture
async def running(free_port: int) -> AsyncIterator[Running]:
    async with serving(free_port) as made:
        yield made


@asynccontextmanager
async def serving(free_port: int, **variables: str) -> AsyncIterator[Running]:
    env = Env({"LISTEN_HOST": "127.0.0.1", "SHUTDOWN_DELAY": "0", "SHUTDOWN_GRACE": "1", **variables})
    telemetry = Telemetry(TelemetryConfig.from_env(env), "test")
    made = Server(ServerConfig.from_env(env, grpc_port=free_port), telemetry, ["test.Echo"])
    made.add(register, None)
    await made.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
        yield Running(made, channel)
    await made.stop()


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    return errors.parse_rpc_error(error)[2]


async def test_a_reason_reaches_the_client_with_its_metadata(running: Running) -> None:
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


async def test_a_field_violation_reaches_the_client(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary(b"field")
    bad = error_details_pb2.BadRequest()
    assert status_of(caught.value).details[0].Unpack(bad)
    assert bad.field_violations[0].field == "items"


async def test_what_passes_says_when_to_come_back(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary(b"later")
    retry = error_details_pb2.RetryInfo()
    assert status_of(caught.value).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


async def test_an_exception_is_internal_and_says_nothing_of_itself(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary(b"boom")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert any(entry.exc_info for entry in caplog.records if entry.levelno == logging.ERROR)


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [(b"boom", grpc.StatusCode.INTERNAL, "internal error"), (b"reason", grpc.StatusCode.ABORTED, "too late")],
)
async def test_a_stream_that_fails_ends_with_its_status(
    running: Running, request_: bytes, code: grpc.StatusCode, text: str
) -> None:
    call = running.stream(request_)
    assert await call.read() == b"one"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), caught.value.details()) == (code, text)


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    call: Any = running.channel.unary_unary("/test.Echo/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_liveness_is_the_process_and_readiness_what_it_needs(running: Running) -> None:
    problem = "the database is unavailable"

    async def look() -> str:
        return problem

    watching = asyncio.create_task(running.server.watch(look))
    await asyncio.sleep(0.05)
    assert await running.check("liveness") == SERVING
    assert await running.check("") == await running.check("test.Echo") == NOT_SERVING
    problem = ""
    async with asyncio.timeout(5):
        while await running.check("test.Echo") != SERVING:
            await asyncio.sleep(0.05)
    problem = "a blip"
    await asyncio.sleep(1.2)
    assert await running.check("") == SERVING, "a blip must not empty DNS"
    watching.cancel()


async def test_draining_says_not_serving_and_still_answers(running: Running) -> None:
    await running.server.set_ready(True)
    await running.server.drain()
    assert await running.check("test.Echo") == NOT_SERVING
    assert await running.unary(b"hello") == b"hello"


async def test_health_can_be_watched(running: Running) -> None:
    call = running.health.Watch(health_pb2.HealthCheckRequest(service="test.Echo"))
    assert (await call.read()).status == NOT_SERVING
    await running.server.set_ready(True)
    assert (await call.read()).status == SERVING
    await running.server.set_ready(False)
    assert (await call.read()).status == NOT_SERVING
    call.cancel()


async def test_large_answers_that_nobody_reads_are_bounded() -> None:
    """So many bytes of one caller's and of all; the others, and what is small, are answered."""

    async def page(request: product_pb2.ListProductsRequest, context: Any) -> product_pb2.Product:
        return product_pb2.Product(description="x" * request.page_size)

    method = grpc.unary_unary_rpc_method_handler(
        page, product_pb2.ListProductsRequest.FromString, product_pb2.Product.SerializeToString
    )
    served = grpc.aio.server()
    limit = ResponseLimit(total=500_000, per_caller=300_000)
    Guarded(served, limit).add_registered_method_handlers("test.Pages", {"Page": method})
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
        """The next refusal; what is answered waits for the client to read."""
        async with asyncio.timeout(5):
            while True:
                for event in h2.receive_data(await reader.read(65_536)):
                    if isinstance(event, ResponseReceived | TrailersReceived):
                        found = {bytes(key): bytes(value) for key, value in event.headers or ()}
                        if b"grpc-status" in found:
                            return found[b"grpc-message"].decode()

    for _ in range(3):
        ask(140_000, "a")
    assert await status() == "too many large responses are waiting to be read by this address"
    ask(150_000, "b")
    ask(150_000, "c")
    assert await status() == "too many large responses are waiting to be read"
    writer.close()
    await writer.wait_closed()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/test.Pages/Page", product_pb2.ListProductsRequest.SerializeToString)
        await eventually(lambda: _answers(call), 5)
    await served.stop(None)


async def _answers(call: Any) -> bool:
    """Whether large answers are given: those of a client that left wait no more."""
    try:
        for _ in range(5):
            await call(product_pb2.ListProductsRequest(page_size=100_000))
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_a_peer_that_died_silently_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls would be kept for two hours otherwise. Within 40 seconds; here of the least that grpc takes."""
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
    started = Server(ServerConfig.from_env(env, grpc_port=port), Telemetry(TelemetryConfig.from_env(env), "test"), [])
    started.grpc.add_generic_rpc_handlers((handlers,))
    await started.start()
    async with Proxy(port).running() as proxy, grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        call: Any = channel.unary_stream("/test.Echo/Stream")
        stream = call(b"")
        assert await stream.read() == b"one"
        await asyncio.sleep(3.5)
        assert not left.is_set(), "one that lives answers its pings"
        proxy.hang()
        await asyncio.wait_for(left.wait(), 10)
        stream.cancel()
    await started.stop()


async def test_who_watches_the_health_keeps_no_process_from_going_away(running: Running) -> None:
    call = running.health.Watch(health_pb2.HealthCheckRequest(service="test.Echo"))
    await running.server.set_ready(True)
    assert (await call.read()).status == SERVING
    await running.server.drain()
    assert (await call.read()).status == NOT_SERVING
    assert await running.check("liveness") == SERVING
    stopping = asyncio.create_task(running.server.stop())
    async with asyncio.timeout(0.5):  # half of the grace
        assert await call.read() is grpc.aio.EOF
        await stopping


async def test_watch_stays_open_while_draining(running: Running) -> None:
    """A client that balances by health would open the next one at once, and so on until the end."""
    call = running.health.Watch(health_pb2.HealthCheckRequest(service="test.Echo"))
    assert (await call.read()).status == NOT_SERVING
    await running.server.drain()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.read(), 0.3)


async def test_lasting_problem_ends_readiness_at_once(running: Running) -> None:
    problem = ""

    async def look() -> str:
        return problem

    watching = asyncio.create_task(running.server.watch(look))
    try:
        await status_becomes(running, "test.Echo", SERVING)
        problem = LastingProblem("password authentication failed")
        await status_becomes(running, "test.Echo", NOT_SERVING)
        problem = ""
        await status_becomes(running, "test.Echo", SERVING)
    finally:
        watching.cancel()


async def status_becomes(running: Running, name: str, status: int) -> None:
    async with asyncio.timeout(3):
        while await running.check(name) != status:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("others", [True, False])
async def test_readiness_is_late_where_other_replicas_are_there(
    free_port: int, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """Clients go by the service's own health, which is not late."""

    async def has_peers(name: str) -> bool:
        return others and name == "shop-test"

    monkeypatch.setattr(server, "has_peers", has_peers)
    monkeypatch.setattr(server, "READINESS_INTERVAL", 0.02)
    problem = ""

    async def look() -> str:
        return problem

    clock = asyncio.get_running_loop().time
    async with serving(free_port, READY_DELAY="0.6", PEERS="shop-test") as running:
        began = clock()
        watching = asyncio.create_task(running.server.watch(look))
        await status_becomes(running, "test.Echo", SERVING)
        await status_becomes(running, "readiness", SERVING)
        assert (clock() - began >= 0.6) == others
        # It is late once.
        problem = LastingProblem("refused")
        await status_becomes(running, "readiness", NOT_SERVING)
        problem = ""
        began = clock()
        await status_becomes(running, "readiness", SERVING)
        assert clock() - began < 0.6
        watching.cancel()


async def test_services_serve_before_kubernetes_hears_of_it(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def has_peers(name: str) -> bool:
        return True

    async def look() -> str:
        return ""

    monkeypatch.setattr(server, "has_peers", has_peers)
    async with serving(free_port, READY_DELAY="300", PEERS="shop-test") as running:
        watching = asyncio.create_task(running.server.watch(look))
        await status_becomes(running, "test.Echo", SERVING)
        assert await running.check("readiness") == NOT_SERVING
        watching.cancel()


async def test_a_taken_port_is_one_clear_error(running: Running, free_port: int) -> None:
    env = Env({"LISTEN_HOST": "127.0.0.1"})
    second = Server(
        ServerConfig.from_env(env, grpc_port=free_port), Telemetry(TelemetryConfig.from_env(env), "test"), []
    )
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{free_port}"):
        await second.start()


async def test_a_call_that_fails_leaves_a_structured_line(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shop.rpc"), pytest.raises(grpc.aio.AioRpcError):
        await running.unary(b"reason")
    line = vars(next(entry for entry in caplog.records if entry.name == "shop.rpc"))
    assert (line["method"], line["code"], line["error"]) == ("/test.Echo/Unary", "FAILED_PRECONDITION", "only 2 left")
