"""An overloaded edge refuses new work, and says so."""

import asyncio

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived

from tests.support.edge import Edge, edge
from tests.support.eventually import eventually
from tests.support.rest import Rest

ONE_CONNECTION = {'max_active_downstream_connections: "26214"': "max_active_downstream_connections: 1"}
NO_HEAP = {'max_heap_size_bytes: "402653184"': "max_heap_size_bytes: 1"}
"""Replacements for an edge with 512 MiB of memory, which has these values of its own."""

OVERLOAD_ACTIONS = {
    "shrink_heap",
    "reduce_timeouts",
    "reset_high_memory_stream",
    "stop_accepting_requests",
    "reject_incoming_connections",
}


async def _all_actions_active(shop: Edge) -> bool:
    async with httpx.AsyncClient() as http:
        stats = (await http.get(f"{shop.admin}/stats", params={"filter": "^overload"})).text
    active = {
        line.split(".")[3]
        for line in stats.splitlines()
        if ".overload_actions." in line and line.endswith((".active: 1", ".scale_percent: 100"))
    }
    return active == OVERLOAD_ACTIONS


async def test_connections_have_a_limit() -> None:
    async with edge(memory=512 * 1024**2, rewrites=ONE_CONNECTION) as running:
        async with running.connection() as (first, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n")
            assert (await first.readline()).startswith(b"HTTP/1.1 200 ")
            async with running.connection() as (second, _), asyncio.timeout(5):
                assert await second.read() == b"", "the edge must close it at once"


async def test_full_heap_refuses_new_connections() -> None:
    """The heap may have three quarters of the memory; here it may have so little that it is full at once."""
    async with edge(memory=512 * 1024**2, rewrites=NO_HEAP) as full:
        await eventually(lambda: _all_actions_active(full), 5)
        async with full.connection() as (reader, _), asyncio.timeout(5):
            assert await reader.read() == b""


async def test_overload_over_http1_gets_503_with_retry_after() -> None:
    """Envoy does not count the memory of single HTTP/1.1 requests, so it refuses all of them."""
    some = "scaling_threshold: 0.75, saturation_threshold: 0.95"
    none = "scaling_threshold: 0.0001, saturation_threshold: 0.001"
    async with edge(rewrites={some: none}) as full, httpx.AsyncClient(base_url=full.url) as http:
        answer = await http.get("/api/v1/products/abc")
    error = Rest.refused(answer, 503, 14)
    assert (error["message"], answer.headers["retry-after"]) == ("the edge is overloaded", "1")


async def test_overload_over_http2_closes_the_connection() -> None:
    """Envoy does not count the memory of headers by stream, so it closes the connection with all its streams."""
    some = "scaling_threshold: 0.8, saturation_threshold: 0.9"
    none = "scaling_threshold: 0.0001, saturation_threshold: 0.001"
    async with edge(rewrites={some: none}) as full, full.connection() as (reader, writer), asyncio.timeout(5):
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
