"""What one client can take of the edge is bounded: times, connections, memory, streams, bodies and headers."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, RemoteSettingsChanged, ResponseReceived, StreamReset
from h2.settings import SettingCodes
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from sse.config import Limits
from tests.support.edge import Edge, edge
from tests.support.order import eventually
from tests.support.rest import Rest
from tests.support.sidecar import sidecar

in_module = pytest.mark.asyncio(loop_scope="module")

SHORT = {
    "request_headers_timeout: 10s": "request_headers_timeout: 0.5s",
    "request_timeout: 10s": "request_timeout: 1s",
    "stream_idle_timeout: 60s": "stream_idle_timeout: 1.5s",
    "stream_flush_timeout: 15s": "stream_flush_timeout: 0.5s",
    "            idle_timeout: 300s": "            idle_timeout: 0.5s",
    "per_connection_buffer_high_watermark_timeout: 15s": "per_connection_buffer_high_watermark_timeout: 0.5s",
}
"""The edge's times, as a test can wait for them."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty() -> AsyncIterator[Edge]:
    async with edge(rewrites=SHORT) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Edge]:
    async with edge() as running:
        yield running


@asynccontextmanager
async def _connected(shop: Edge) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = shop.target.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def _dripping(shop: Edge, first: bytes, drop: bytes) -> bytes:
    """What a client gets that sends a little at a time, for ever."""
    async with _connected(shop) as (reader, writer):
        writer.write(first)
        answer = asyncio.create_task(reader.read(65_536))
        async with asyncio.timeout(5):
            while not answer.done():
                writer.write(drop)
                await asyncio.wait([answer], timeout=0.1)
        return await answer


@in_module
async def test_headers_that_never_end_are_refused(hasty: Edge) -> None:
    answer = await _dripping(hasty, b"GET / HTTP/1.1\r\nHost: shop\r\n", b"X-More: 1\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")


@in_module
async def test_a_body_that_never_ends_is_refused(hasty: Edge) -> None:
    head = (
        b"POST /api/v1/orders HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
    )
    answer = await _dripping(hasty, head, b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == 4


@in_module
async def test_an_idle_connection_is_closed(hasty: Edge) -> None:
    async with _connected(hasty) as (reader, _), asyncio.timeout(5):
        assert await reader.read() == b""


@in_module
async def test_a_stream_on_which_nothing_comes_is_ended(hasty: Edge) -> None:
    """The service answers after two seconds."""
    async with httpx.AsyncClient(base_url=hasty.url, timeout=5) as http:
        Rest.refused(await http.get("/api/v1/products/slow"), 504, 4)


@in_module
async def test_unread_answer_over_http1_ends_its_connection(hasty: Edge) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        host, _, port = hasty.target.partition(":")
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, b"GET /api/v1/products/huge HTTP/1.1\r\nHost: shop\r\n\r\n")

        async def cut() -> bool:
            return await _stat(hasty, "http.edge.downstream_cx_destroy_local") > before

        before = await _stat(hasty, "http.edge.downstream_cx_destroy_local")
        await eventually(cut, 5)


@in_module
async def test_unread_answer_over_http2_ends_its_stream(hasty: Edge) -> None:
    """A client that gives no window makes the edge keep what it asked for."""
    async with _connected(hasty) as (reader, writer), asyncio.timeout(5):
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        names = {":method": "GET", ":scheme": "http", ":authority": "shop", ":path": "/api/v1/products/huge"}
        h2.send_headers(1, list(names.items()), end_stream=True)
        while True:
            writer.write(h2.data_to_send())
            if any(isinstance(event, StreamReset) for event in h2.receive_data(await reader.read(65_536))):
                return


async def _stat(shop: Edge, name: str) -> int:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{shop.admin}/stats", params={"filter": f"^{name}$"})).text
    return int(text.rpartition(": ")[2] or 0)


@in_module
async def test_answers_that_are_not_read_hold_up_no_others(shop: Edge) -> None:
    """All that a service answers shares its connection to the edge."""
    path = "/shop.product.v1.ProductService/GetProduct"
    names = {":method": "POST", ":scheme": "http", ":authority": "shop", ":path": path}
    message = product_pb2.GetProductRequest(id="large").SerializeToString()
    async with _connected(shop) as (reader, writer):
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        for stream in range(1, 121, 2):
            h2.send_headers(stream, [*names.items(), ("content-type", "application/grpc"), ("te", "trailers")])
            h2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        writer.write(h2.data_to_send())
        answered = 0
        async with asyncio.timeout(10):
            while answered < 60:
                events = h2.receive_data(await reader.read(65_536))
                answered += sum(isinstance(event, ResponseReceived) for event in events)
        async with httpx.AsyncClient(base_url=shop.url, timeout=5) as http:
            assert (await http.get("/api/v1/products/abc")).status_code == 200


async def test_connections_have_a_limit() -> None:
    async with edge(memory=512 * 1024**2, rewrites={'max_active_downstream_connections: "26214"': ONE}) as running:
        async with _connected(running) as (first, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n")
            assert (await first.readline()).startswith(b"HTTP/1.1 200 ")
            async with _connected(running) as (second, _), asyncio.timeout(5):
                assert await second.read() == b"", "closed at once"


ONE = "max_active_downstream_connections: 1"


async def test_a_full_heap_refuses_what_is_new() -> None:
    """Three quarters of the memory; here so little that it is full from the beginning."""
    async with edge(
        memory=512 * 1024**2, rewrites={'max_heap_size_bytes: "402653184"': "max_heap_size_bytes: 1"}
    ) as full:

        async def active() -> bool:
            async with httpx.AsyncClient() as http:
                stats = (await http.get(f"{full.admin}/stats", params={"filter": "^overload"})).text
            return {
                line.split(".")[3]
                for line in stats.splitlines()
                if ".overload_actions." in line and line.endswith((".active: 1", ".scale_percent: 100"))
            } == {
                "shrink_heap",
                "reduce_timeouts",
                "reset_high_memory_stream",
                "stop_accepting_requests",
                "reject_incoming_connections",
            }

        await eventually(active, 5)
        async with _connected(full) as (reader, _), asyncio.timeout(5):
            assert await reader.read() == b""


async def test_http1_that_overfills_the_heap_is_told_to_come_again() -> None:
    """What arrives over HTTP/1.1 is not counted by stream."""
    some = "scaling_threshold: 0.75, saturation_threshold: 0.95"
    none = "scaling_threshold: 0.0001, saturation_threshold: 0.001"
    async with edge(rewrites={some: none}) as full, httpx.AsyncClient(base_url=full.url) as http:
        answer = await http.get("/api/v1/products/abc")
    error = Rest.refused(answer, 503, 14)
    assert (error["message"], answer.headers["retry-after"]) == ("the edge is overloaded", "1")


async def test_http2_that_overfills_the_heap_is_sent_away() -> None:
    """Headers are not counted by stream either, and a connection has many streams."""
    some = "scaling_threshold: 0.8, saturation_threshold: 0.9"
    none = "scaling_threshold: 0.0001, saturation_threshold: 0.001"
    async with edge(rewrites={some: none}) as full, _connected(full) as (reader, writer), asyncio.timeout(5):
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        path = (":path", "/api/v1/products/abc")
        h2.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), path], end_stream=True)
        writer.write(h2.data_to_send())
        events: list[object] = []
        while data := await reader.read(65_536):
            events += h2.receive_data(data)
    assert any(isinstance(event, ConnectionTerminated) for event in events)
    assert not any(isinstance(event, ResponseReceived) for event in events)


@in_module
async def test_a_connection_has_a_hundred_and_some_streams(shop: Edge) -> None:
    async with _connected(shop) as (reader, writer), asyncio.timeout(5):
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        writer.write(h2.data_to_send())
        while True:
            for event in h2.receive_data(await reader.read(65_536)):
                if isinstance(event, RemoteSettingsChanged):
                    assert event.changed_settings[SettingCodes.MAX_CONCURRENT_STREAMS].new_value == 128
                    return


def _largest_product() -> str:
    """Every text as long as it may be, and every character as long as JSON can make it."""
    character = "\N{GRINNING FACE}"
    texts = {"name": 200, "variant": 100, "description": 10_000, "category": 100, "imageUri": 2_000}
    product = {name: character * length for name, length in texts.items()}
    return json.dumps({**product, "slug": "s" * 100, "sku": "s" * 64, "price": {"currencyCode": "EUR", "units": "1"}})


@in_module
async def test_the_largest_honest_body_passes_and_a_larger_one_is_refused(shop: Edge) -> None:
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=shop.url, timeout=10, headers=headers) as http:
        body = _largest_product()
        assert len(body) > 149_000
        assert (await http.post("/api/v1/products", content=body)).status_code == 200
        error = Rest.refused(await http.post("/api/v1/products", content=body + " " * 20_000), 413, 3)
        assert error["message"] == "the body is larger than 160 KiB"


@in_module
async def test_a_native_message_that_is_too_large_says_so(shop: Edge) -> None:
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = order_pb2_grpc.OrderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateOrder(order_pb2.CreateOrderRequest(notes="x" * 170_000))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the body is larger than 160 KiB"


@in_module
async def test_half_of_a_message_takes_nothing_from_a_service(shop: Edge) -> None:
    """Otherwise calls that never become whole would use up what the edge lets through to it."""
    head = b"POST /shop.order.v1.OrderService/CreateOrder HTTP/1.1\r\nHost: shop\r\n"
    async with _connected(shop) as (_, writer):
        writer.write(head + b"Content-Type: application/grpc-web+proto\r\nContent-Length: 5000\r\n\r\n" + b"\0" * 4_000)

        async def arrived() -> bool:
            return await _stat(shop, "http.edge.downstream_rq_active") > 0

        await eventually(arrived, 5)
        await asyncio.sleep(0.2)
        assert await _stat(shop, "cluster.order.upstream_rq_active") == 0


KIB = [8, 12, 15, 20, 31, 40]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole() -> AsyncIterator[tuple[Edge, str]]:
    """The edge before a real sidecar, and an order to follow."""
    async with sidecar() as running, edge(sse_http_port=running.sidecar.http_port) as shop:
        yield shop, running.logs.place("PLACED", "CANCELLED")


@in_module
@pytest.mark.parametrize("kib", KIB)
async def test_headers_pass_everywhere_or_nowhere(whole: tuple[Edge, str], kib: int) -> None:
    """A gateway in front adds cookies and tokens of some size: they are no overload, and none comes by chance."""
    shop, order_id = whole
    cookie = "a" * (kib * 1024)
    paths = ("/api/v1/orders?pageSize=1", "/api/v1/products/abc", f"/api/orders/stream?order_id={order_id}")
    for http2 in (False, True):
        async with httpx.AsyncClient(base_url=shop.url, http1=not http2, http2=http2, timeout=5) as http:
            for path in paths:
                answer = await http.get(path, headers={"cookie": cookie, "accept": "text/event-stream"})
                if kib < 32:
                    assert answer.status_code == 200, (path, answer.text)
                else:
                    Rest.refused(answer, 431, 3)
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = product_pb2_grpc.ProductServiceStub(channel)
        call = stub.GetProduct(product_pb2.GetProductRequest(id="abc"), metadata=(("cookie", cookie),))
        if kib < 32:
            assert (await call).id == "abc"
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "the headers are larger than 32 KiB or more than 100"


@in_module
@pytest.mark.parametrize(("number", "status"), [(90, 200), (120, 431), (250, 431)])
async def test_so_many_headers_pass(shop: Edge, number: int, status: int) -> None:
    async with httpx.AsyncClient(base_url=shop.url, timeout=5) as http:
        answer = await http.get("/api/v1/products/abc", headers={f"x-{each}": "1" for each in range(number)})
    assert answer.status_code == status


async def test_who_watches_the_health_keeps_nobody_from_checking_it() -> None:
    two = "- {max_requests: 2048, max_pending_requests: 2048, retry_budget: *retries}"
    async with (
        edge(rewrites={two: two.replace("max_requests: 2048", "max_requests: 1")}) as shop,
        grpc.aio.insecure_channel(shop.target) as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Watch(health_pb2.HealthCheckRequest()).read()
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_one_address_has_so_many_watches_through_the_edge() -> None:
    """Whatever it says of its address: the edge knows better."""
    async with sidecar(limits=Limits(streams_per_client=2)) as running:
        port = running.sidecar.grpc_port
        async with edge(sse_grpc_port=port) as shop, grpc.aio.insecure_channel(shop.target) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(service="sse")) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            forged = (("x-envoy-external-address", "203.0.113.9"), ("x-forwarded-for", "203.0.113.9"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Watch(health_pb2.HealthCheckRequest(service="sse"), metadata=forged).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details() == "too many streams are open from this address"
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub
            with pytest.raises(grpc.aio.AioRpcError, match="too many streams"):
                await reflection(channel).ServerReflectionInfo(iter([])).read()
