"""A slow client takes little of the edge: it must send its request, and read its response, within some time."""

import asyncio
import json
import socket

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamReset
from h2.settings import SettingCodes
from shop.product.v1 import product_pb2

from tests.support.edge import Edge, edge_fixture
from tests.support.eventually import eventually
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOSED_BY_EDGE = "http.edge.downstream_cx_destroy_local"
"""Envoy's counter of connections that it has closed itself."""

SHORT = {
    "request_headers_timeout: 10s": "request_headers_timeout: 0.5s",
    "request_timeout: 10s": "request_timeout: 1s",
    "stream_idle_timeout: 60s": "stream_idle_timeout: 1.5s",
    "stream_flush_timeout: 15s": "stream_flush_timeout: 0.5s",
    "            idle_timeout: 300s": "            idle_timeout: 0.5s",
    "per_connection_buffer_high_watermark_timeout: 15s": "per_connection_buffer_high_watermark_timeout: 0.5s",
}
"""The edge's times, shortened so that a test can wait for them."""

shop = edge_fixture()
impatient = edge_fixture(rewrites=SHORT)


async def _reaches(shop: Edge, counter: str, value: int) -> bool:
    return await shop.stat(counter) >= value


async def _send_slowly(shop: Edge, first: bytes, drop: bytes) -> bytes:
    """Returns the response to a client that sends a little at a time, without an end."""
    async with shop.connection() as (reader, writer):
        writer.write(first)
        response = asyncio.create_task(reader.read(65_536))
        async with asyncio.timeout(5):
            while not response.done():
                writer.write(drop)
                await asyncio.wait([response], timeout=0.1)
        return await response


async def test_endless_headers_are_refused(impatient: Edge) -> None:
    answer = await _send_slowly(impatient, b"GET / HTTP/1.1\r\nHost: shop\r\n", b"X-More: 1\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_endless_body_is_refused(impatient: Edge) -> None:
    head = (
        b"POST /api/v1/orders HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
    )
    answer = await _send_slowly(impatient, head, b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == 4


async def test_idle_connection_is_closed(impatient: Edge) -> None:
    async with impatient.connection() as (reader, _), asyncio.timeout(5):
        assert await reader.read() == b""


async def test_request_without_progress_times_out(impatient: Edge) -> None:
    """The service responds after two seconds, which is longer than this edge waits."""
    async with httpx.AsyncClient(base_url=impatient.url, timeout=5) as http:
        Rest.refused(await http.get("/api/v1/products/slow"), 504, 4)


async def test_unread_http1_response_ends_its_connection(impatient: Edge) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, impatient.address)
        await loop.sock_sendall(client, b"GET /api/v1/products/huge HTTP/1.1\r\nHost: shop\r\n\r\n")
        # One more connection is closed by the edge than before.
        expected = await impatient.stat(CLOSED_BY_EDGE) + 1
        await eventually(lambda: _reaches(impatient, CLOSED_BY_EDGE, expected), 5)


async def test_unread_http2_response_ends_its_stream(impatient: Edge) -> None:
    """A client without a window makes the edge keep the response."""
    async with impatient.connection() as (reader, writer), asyncio.timeout(5):
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        names = {":method": "GET", ":scheme": "http", ":authority": "shop", ":path": "/api/v1/products/huge"}
        h2.send_headers(1, list(names.items()), end_stream=True)
        while True:
            writer.write(h2.data_to_send())
            if any(isinstance(event, StreamReset) for event in h2.receive_data(await reader.read(65_536))):
                return


async def test_unread_responses_do_not_block_other_calls(shop: Edge) -> None:
    """All responses of a service share one connection to the edge."""
    path = "/shop.product.v1.ProductService/GetProduct"
    names = {":method": "POST", ":scheme": "http", ":authority": "shop", ":path": path}
    message = product_pb2.GetProductRequest(id="large").SerializeToString()
    async with shop.connection() as (reader, writer):
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


async def test_incomplete_grpc_web_message_reaches_no_service(shop: Edge) -> None:
    """Otherwise, calls that stay incomplete would use up the calls that the edge lets through to a service."""
    head = b"POST /shop.order.v1.OrderService/CreateOrder HTTP/1.1\r\nHost: shop\r\n"
    async with shop.connection() as (_, writer):
        writer.write(head + b"Content-Type: application/grpc-web+proto\r\nContent-Length: 5000\r\n\r\n" + b"\0" * 4_000)
        await eventually(lambda: shop.stat("http.edge.downstream_rq_active"), 5)
        await asyncio.sleep(0.2)
        assert await shop.stat("cluster.order.upstream_rq_active") == 0
