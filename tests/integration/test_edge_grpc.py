"""gRPC and gRPC-Web at the edge: what is reachable, and with which errors."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from shop.order.v1 import order_pb2, order_pb2_grpc, status_feed_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc, stock_pb2, stock_pb2_grpc

from tests.support.echo import CART, ORDER, PRODUCT
from tests.support.edge import Edge, edge, edge_fixture
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")


shop = edge_fixture()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(shop: Edge) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(shop.target) as opened:
        yield opened


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Returns the google.rpc.Status of an error."""
    trailer = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(trailer, bytes)
    return status_pb2.Status.FromString(trailer)


async def test_grpc_call_returns_its_response(channel: grpc.aio.Channel) -> None:
    product = await product_pb2_grpc.ProductServiceStub(channel).GetProduct(product_pb2.GetProductRequest(id="abc"))
    assert product.id == "abc"


async def test_grpc_error_has_its_details(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await product_pb2_grpc.ProductServiceStub(channel).GetProduct(product_pb2.GetProductRequest(id="missing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    status = details(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "PRODUCT_NOT_FOUND"


async def test_grpc_deadline_reaches_the_service(shop: Edge, channel: grpc.aio.Channel) -> None:
    stub = order_pb2_grpc.OrderServiceStub(channel)
    await stub.GetOrder(order_pb2.GetOrderRequest(id="abc"), timeout=3)
    assert shop.calls.seconds_left < 3.1


async def test_grpc_call_past_its_deadline_fails(channel: grpc.aio.Channel) -> None:
    stub = product_pb2_grpc.ProductServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetProduct(product_pb2.GetProductRequest(id="slow"), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_grpc_status_stream_passes(channel: grpc.aio.Channel) -> None:
    stub = order_pb2_grpc.OrderServiceStub(channel)
    events = [each async for each in stub.StreamOrderStatus(order_pb2.StreamOrderStatusRequest(order_id="abc"))]
    assert [each.version for each in events] == [1, 2]


async def test_internal_services_are_unimplemented(channel: grpc.aio.Channel) -> None:
    """They are served behind the edge, so only the edge can refuse them; its message is no JSON."""
    with pytest.raises(grpc.aio.AioRpcError) as stock:
        await stock_pb2_grpc.StockServiceStub(channel).ReleaseReservation(stock_pb2.ReleaseReservationRequest())
    assert stock.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "{" not in (stock.value.details() or "")
    # Nothing is sent on it: grpcio calls a message that meets the refusal INTERNAL.
    feed = status_feed_pb2_grpc.StatusFeedServiceStub(channel).FollowOrders()
    assert await feed.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "{" not in (await feed.details() or "")


@pytest.mark.parametrize("name", ["", PRODUCT, ORDER, CART])
async def test_health_of_every_public_service_is_reported(channel: grpc.aio.Channel, name: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_responds_while_its_stream_is_open(channel: grpc.aio.Channel, version: str) -> None:
    """It is bidirectional: a filter that waits for the whole request would hang it."""
    ask: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask(timeout=5)
    for _ in range(2):
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        assert {PRODUCT, ORDER, CART} <= {each.name for each in answer.list_services_response.service}
    await call.done_writing()


def frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def unframe(body: bytes) -> list[tuple[int, bytes]]:
    """The frames of a gRPC-Web body: (flags, payload)."""
    frames = []
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        frames.append((flags, body[5 : 5 + size]))
        body = body[5 + size :]
    return frames


async def web_call(shop: Edge, method: str, request: bytes, kind: str = "application/grpc-web+proto") -> httpx.Response:
    headers = {"content-type": kind, "x-grpc-web": "1"}
    async with httpx.AsyncClient(base_url=shop.url, timeout=5) as http:
        return await http.post(method, content=frame(request), headers=headers)


async def test_grpc_web_call_returns_its_response(shop: Edge) -> None:
    answer = await web_call(shop, f"/{PRODUCT}/GetProduct", product_pb2.GetProductRequest(id="abc").SerializeToString())
    assert answer.headers["content-type"].startswith("application/grpc-web")
    (_, message), (flags, trailers) = unframe(answer.content)
    assert product_pb2.Product.FromString(message).id == "abc"
    assert flags == 0x80
    assert b"grpc-status:0" in trailers


@pytest.mark.parametrize(
    "kind",
    [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web+proto;charset=utf-8",
        "application/grpc-web; charset=utf-8",
        "APPLICATION/GRPC-WEB",
        "Application/Grpc-Web+Proto ; x=1",
    ],
)
async def test_grpc_web_content_type_spellings_are_accepted(shop: Edge, kind: str) -> None:
    """Media types know no case, and may have parameters."""
    request = product_pb2.GetProductRequest(id="abc").SerializeToString()
    answer = await web_call(shop, f"/{PRODUCT}/GetProduct", request, kind)
    (_, message), (flags, _) = unframe(answer.content)
    assert (product_pb2.Product.FromString(message).id, flags) == ("abc", 0x80)


async def test_grpc_web_text_with_parameters_is_accepted(shop: Edge) -> None:
    request = base64.b64encode(frame(product_pb2.GetProductRequest(id="abc").SerializeToString()))
    headers = {"content-type": "application/grpc-web-text; charset=utf-8", "accept": "application/grpc-web-text"}
    async with httpx.AsyncClient(base_url=shop.url, timeout=5) as http:
        answer = await http.post(f"/{PRODUCT}/GetProduct", content=request, headers=headers)
    assert answer.headers["content-type"].startswith("application/grpc-web-text")
    assert b"abc" in base64.b64decode(answer.content[:20])


@pytest.mark.parametrize(
    "kind",
    [
        "application/grpc-web+json",
        "application/grpc-web+thrift",
        "application/grpc-web-text+json",
        "application/grpcfoo",
        "application/json",
        "application/connect+proto",
        "application/proto",
        "text/plain; application/grpc-web",
        "",
    ],
)
async def test_other_content_types_get_415(shop: Edge, kind: str) -> None:
    shop.calls.count.clear()
    for path in (f"/{PRODUCT}/GetProduct", "/grpc.health.v1.Health/Check", "/shop.product.v1.StockService/X"):
        Rest.refused(await web_call(shop, path, b"", kind), 415, 3)
    assert not shop.calls.count


@pytest.mark.parametrize("kind", ["application/grpc-web", "APPLICATION/GRPC-WEB", "application/grpc-web;charset=utf-8"])
async def test_incomplete_message_does_not_reach_the_service(shop: Edge, kind: str) -> None:
    """It goes on when it is here whole, however its content-type is spelled."""
    host, _, port = shop.target.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /{PRODUCT}/GetProduct HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + b"\0" * 10)
    await writer.drain()
    async with httpx.AsyncClient(timeout=5) as http:
        active = ""
        async with asyncio.timeout(5):
            while "http.edge.downstream_rq_active: 1\n" not in active:
                active = (await http.get(f"{shop.admin}/stats?filter=rq_active")).text
    writer.close()
    await writer.wait_closed()
    assert "cluster.product.upstream_rq_active: 0\n" in active


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc-web", ""])
async def test_methods_other_than_post_get_405(shop: Edge, kind: str) -> None:
    """They log what is no call of theirs in gRPC's words."""
    shop.calls.count.clear()
    async with httpx.AsyncClient(base_url=shop.url, timeout=5, http1=False, http2=True) as http:
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            answer = await http.request(method, f"/{PRODUCT}/GetProduct", headers={"content-type": kind})
            assert answer.headers["allow"] == "POST, OPTIONS"
            assert answer.status_code == 405 or answer.headers["grpc-status"] == "12"
    assert not shop.calls.count


async def test_malformed_grpc_timeout_is_rejected(shop: Edge) -> None:
    """As a fault of the caller's, in the words of its protocol."""
    for value in ("172800000m", "Infinitym", "-1S", "10s", ""):
        headers = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": value}
        async with httpx.AsyncClient(base_url=shop.url, timeout=5, http1=False, http2=True) as http:
            answer = await http.post(f"/{PRODUCT}/GetProduct", content=frame(b""), headers=headers)
        assert (answer.status_code, answer.headers["grpc-status"]) == (200, "3")
        assert "eight digits" in answer.headers["grpc-message"]


async def test_retry_info_reaches_grpc_clients(shop: Edge, channel: grpc.aio.Channel) -> None:
    """The header that REST gets out of it is one more trailer."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await product_pb2_grpc.ProductServiceStub(channel).GetProduct(product_pb2.GetProductRequest(id="busy"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = details(caught.value)
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 1500
    request = product_pb2.GetProductRequest(id="busy").SerializeToString()
    answer = await web_call(shop, f"/{PRODUCT}/GetProduct", request)
    assert (answer.headers["grpc-status"], answer.headers["retry-after"]) == ("8", "2")


async def test_grpc_web_error_has_its_status(shop: Edge) -> None:
    request = product_pb2.GetProductRequest(id="missing").SerializeToString()
    answer = await web_call(shop, f"/{PRODUCT}/GetProduct", request)
    trailers = dict(answer.headers) | {"body": str(answer.content)}
    assert trailers.get("grpc-status") == "5" or "grpc-status:5" in trailers["body"]


async def test_grpc_web_cannot_reach_internal_services(shop: Edge) -> None:
    answer = await web_call(shop, "/shop.product.v1.StockService/ReleaseReservation", b"")
    assert answer.headers.get("grpc-status") == "12" or answer.status_code == 404


async def test_full_stream_limit_leaves_calls_unaffected() -> None:
    """They last, and anybody may open them: in one circuit breaker with the calls they would shut everybody out."""
    async with edge(max_streams=2) as running, grpc.aio.insecure_channel(running.target) as channel:
        stub = order_pb2_grpc.OrderServiceStub(channel)
        request = order_pb2.StreamOrderStatusRequest(order_id="endless")
        streams = [aiter(stub.StreamOrderStatus(request)) for _ in range(2)]
        assert [(await anext(stream)).version for stream in streams] == [1, 1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.StreamOrderStatus(request)))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await stub.GetOrder(order_pb2.GetOrderRequest(id="abc"))).id == "abc"
