"""HTTP itself at the edge: its versions, its header names, and what is malformed."""

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass

import grpc
import httpx
import pytest
from shop.product.v1 import product_pb2, product_pb2_grpc

from tests.support.edge import Edge, edge_fixture, http_fixture
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

refused = Rest.refused


shop = edge_fixture()
http = http_fixture("HTTP/1.1", "HTTP/2")


@dataclass
class Raw:
    """An answer to what no client library would send; one without a length goes on until the connection ends."""

    status: str
    headers: str
    body: str


async def send(shop: Edge, request: str) -> Raw:
    host, _, port = shop.target.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request.replace("\n", "\r\n").encode())
        async with asyncio.timeout(5):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
            length = re.search(r"(?i)\r\ncontent-length: (\d+)", head)
            body = (await reader.readexactly(int(length[1])) if length else await reader.read()).decode()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    status, _, headers = head.partition("\r\n")
    return Raw(status.partition(" ")[2], headers.lower(), body)


@pytest.mark.parametrize("host", ["Host: shop.example\n", ""])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", "<!doctype html>"),
        ("/api/v1/products/abc", '{"id":"abc"'),
        ("/api/orders/stream?order_id=abc", "data: "),
        ("/api/v1/orders/abc/status/stream", "data: "),
        ("/healthz", ""),
    ],
)
async def test_http_1_0_request_succeeds(shop: Edge, host: str, path: str, body: str) -> None:
    """As nginx asks by default, `curl -0` and `ab`. It knows no chunks: a stream ends with its connection."""
    answer = await send(shop, f"GET {path} HTTP/1.0\n{host}Connection: close\n\n")
    assert answer.status.startswith("200 ")
    assert answer.body.lower().startswith(body)
    assert "transfer-encoding" not in answer.headers


async def test_post_and_errors_work_over_http_1_0(shop: Edge) -> None:
    head = "POST /api/v1/orders HTTP/1.0\nContent-Type: application/json\nContent-Length: 13\n\n"
    assert '"notes":"x"' in (await send(shop, head + '{"notes":"x"}')).body
    answer = await send(shop, "GET /nothing HTTP/1.0\n\n")
    assert answer.status.startswith("404 ")
    assert '"code":5' in answer.body


async def test_header_with_underscore_is_dropped(shop: Edge, http: httpx.AsyncClient) -> None:
    """Proxies and SDKs add some; and servers behind may take one for the same name with hyphens."""
    sent = {"under_score": "1", "x_shop_caller": "mallory", "X_Shop-Caller": "mallory", "x-shop_caller": "mallory"}
    for path in ("/", "/healthz", "/api/orders/stream", "/api/v1/products/abc"):
        assert (await http.get(path, headers=sent)).status_code == 200
    assert (await http.post("/api/v1/orders", json={}, headers=sent)).status_code == 200
    assert not [name for name in shop.calls.metadata if "_" in name or "caller" in name]


async def test_metadata_with_underscore_is_dropped(shop: Edge) -> None:
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = product_pb2_grpc.ProductServiceStub(channel)
        metadata = (("my_header", "1"), ("x_shop_caller", "mallory"), ("my-header", "2"))
        await stub.GetProduct(product_pb2.GetProductRequest(id="abc"), metadata=metadata)
    assert shop.calls.metadata["my-header"] == "2"
    assert not [name for name in shop.calls.metadata if "_" in name or "caller" in name]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ("GET /api/v1/products HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\n", 400, 3),
        ("GET /api/orders/stream HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\n", 400, 3),
        ("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: tls/1.2\n\n", 400, 3),
        ("CONNECT a:80 HTTP/1.1\nHost: a\n\n", 404, 5),
        ("GET /healthz HTTP/1.1\nConnection: close\n\n", 400, 3),
        ("GET /healthz HTTP/1.1\nHost: a\nX: a\x01b\n\n", 400, 3),
        ("POST /api/v1/orders HTTP/1.1\nHost: a\nContent-Length: abc\n\n", 400, 3),
        (f"GET /healthz HTTP/1.1\nHost: a\n{''.join(f'x-{n}: 1{chr(10)}' for n in range(200))}\n", 431, 3),
    ],
)
async def test_malformed_request_gets_a_json_error(shop: Edge, request_: str, status: int, code: int) -> None:
    answer = await send(shop, request_)
    assert answer.status.startswith(f"{status} "), answer
    response = httpx.Response(status, headers={"content-type": "application/json"}, text=answer.body)
    assert "content-type: application/json" in answer.headers
    refused(response, status, code)


LONG = [
    ("/api/v1/orders/" + ":" * 30_000 + "/x/y/", "x"),
    ("/api/v1/orders/" + "a" * 30_000 + "/", "x"),
    ("/api/v1/products?" + "_" * 30_000 + "=", "x"),
    ("/api/v1/products?" + "a=&" * 10_000, "x"),
    ("/api/v1/orders", "a" + " " * 30_000 + "b"),
    ("/shop.product.v1.ProductService/GetProduct", "application/grpc" + " " * 30_000 + "b"),
]


@pytest.mark.parametrize(("path", "kind"), LONG)
async def test_long_request_takes_little_time(shop: Edge, path: str, kind: str) -> None:
    """A pattern that begins anew at every place of a text would keep one of the edge's few threads for a second."""
    async with asyncio.timeout(5):
        for _ in range(10):
            answer = await send(shop, f"POST {path} HTTP/1.1\nHost: a\nContent-Type: {kind}\n\n")
            assert answer.status.startswith("4")


async def test_upgrade_to_http2_is_ignored(shop: Edge) -> None:
    """Java's HttpClient asks for it with every request without TLS."""
    upgrade = "Connection: Upgrade, HTTP2-Settings, close\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n"
    answer = await send(shop, f"GET /api/v1/products/abc HTTP/1.1\nHost: a\n{upgrade}\n")
    assert answer.status.startswith("200 ")
