"""The edge when nothing behind it answers."""

import re
from contextlib import closing
from socket import socket

import grpc
import httpx
import pytest
from shop.product.v1 import product_pb2, product_pb2_grpc

from tests.support.edge import Edge, edge_fixture, http_fixture
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMS = ["/api/orders/stream?order_id=abc", "/api/v1/orders/abc/status/stream"]


def closed_port() -> int:
    """Returns a port on which no process listens."""
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


CLOSED_PORT = closed_port()

shop = edge_fixture(
    product=f"127.0.0.1:{CLOSED_PORT}",
    order=f"nowhere.invalid:{CLOSED_PORT}",
    sse_http_port=CLOSED_PORT,
    sse_grpc_port=CLOSED_PORT,
)
http = http_fixture()


@pytest.mark.parametrize("path", ["/api/v1/products", "/api/v1/orders/abc", "/api/v1/orders"])
async def test_read_gets_503_with_retry_after(http: httpx.AsyncClient, path: str) -> None:
    """A refused connection and an unknown name alike; where the service would be is nobody's business."""
    answer = await http.get(path)
    error = Rest.refused(answer, 503, 14)
    assert error["message"] == "the service is unavailable"
    assert error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]
    assert answer.headers["retry-after"] == "1"


async def test_write_gets_503(http: httpx.AsyncClient) -> None:
    Rest.refused(await http.post("/api/v1/orders", json={"items": []}), 503, 14)


async def test_grpc_client_gets_unavailable_status(shop: Edge) -> None:
    async with grpc.aio.insecure_channel(shop.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await product_pb2_grpc.ProductServiceStub(channel).GetProduct(product_pb2.GetProductRequest(id="abc"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "the service is unavailable"


@pytest.mark.parametrize("path", STREAMS)
async def test_event_source_is_told_to_retry(http: httpx.AsyncClient, path: str) -> None:
    """It would give up for good on a 503; within two to three seconds it is back, not all at once."""
    answer = await http.get(path, headers={"accept": "text/event-stream"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert re.fullmatch(r"retry: 2\d{3}\n\n", answer.text)


@pytest.mark.parametrize("path", STREAMS)
async def test_other_clients_of_a_stream_get_503(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    Rest.refused(answer, 503, 14)
    assert answer.headers["retry-after"] == "1"


async def test_event_source_of_unknown_path_gets_404(http: httpx.AsyncClient) -> None:
    Rest.refused(await http.get("/api/orders/streams", headers={"accept": "text/event-stream"}), 404, 5)
    Rest.refused(await http.get("/api/v1/orders/abc", headers={"accept": "text/event-stream"}), 503, 14)
