"""The edge when nothing behind it answers."""

import re
from collections.abc import AsyncIterator
from contextlib import closing
from socket import socket

import grpc
import httpx
import pytest
import pytest_asyncio
from shop.product.v1 import product_pb2, product_pb2_grpc

from tests.support.edge import Edge, edge
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMS = ["/api/orders/stream?order_id=abc", "/api/v1/orders/abc/status/stream"]


def closed_port() -> int:
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Edge]:
    nobody = closed_port()
    down = {"product": f"127.0.0.1:{nobody}", "order": f"nowhere.invalid:{nobody}"}
    async with edge(**down, sse_http_port=nobody, sse_grpc_port=nobody) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(shop: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=shop.url, timeout=10) as client:
        yield client


@pytest.mark.parametrize("path", ["/api/v1/products", "/api/v1/orders/abc", "/api/v1/orders"])
async def test_rest_says_unavailable_and_when_to_come_again(http: httpx.AsyncClient, path: str) -> None:
    """A refused connection and an unknown name alike; where the service would be is nobody's business."""
    answer = await http.get(path)
    error = Rest.refused(answer, 503, 14)
    assert error["message"] == "the service is unavailable"
    assert error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]
    assert answer.headers["retry-after"] == "1"


async def test_a_write_says_unavailable_too(http: httpx.AsyncClient) -> None:
    Rest.refused(await http.post("/api/v1/orders", json={"items": []}), 503, 14)


async def test_a_native_client_gets_a_status_and_no_json(shop: Edge) -> None:
    async with grpc.aio.insecure_channel(shop.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await product_pb2_grpc.ProductServiceStub(channel).GetProduct(product_pb2.GetProductRequest(id="abc"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "the service is unavailable"


@pytest.mark.parametrize("path", STREAMS)
async def test_an_event_source_is_told_to_come_again(http: httpx.AsyncClient, path: str) -> None:
    """It would give up for good on a 503; within two to three seconds it is back, not all at once."""
    answer = await http.get(path, headers={"accept": "text/event-stream"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert re.fullmatch(r"retry: 2\d{3}\n\n", answer.text)


@pytest.mark.parametrize("path", STREAMS)
async def test_others_get_json_from_a_stream_that_is_down(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    Rest.refused(answer, 503, 14)
    assert answer.headers["retry-after"] == "1"


async def test_an_event_source_of_a_wrong_address_is_told_so(http: httpx.AsyncClient) -> None:
    Rest.refused(await http.get("/api/orders/streams", headers={"accept": "text/event-stream"}), 404, 5)
    Rest.refused(await http.get("/api/v1/orders/abc", headers={"accept": "text/event-stream"}), 503, 14)
