"""Server-sent events at the edge: they pass as the sidecar sends them."""

import ctypes
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support.edge import Edge, edge_fixture, http_fixture
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ["/api/orders/stream?order_id=abc", "/api/v1/orders/abc/status/stream"]
EVENTS = {"accept": "text/event-stream"}


shop = edge_fixture()
http = http_fixture()


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_passes_untouched(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, headers={**EVENTS, "last-event-id": "3", "x-envoy-external-address": "10.0.0.1"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text.endswith("\n\n")
    seen = {name.lower(): value for name, value in json.loads(answer.text[6:]).items()}
    assert seen["path"] == path.partition("?")[0]
    assert seen["last-event-id"] == "3"
    assert seen["x-envoy-external-address"] == "127.0.0.1", "the sidecar learns who really asks"


async def test_event_source_gets_200_if_sidecar_breaks_off(http: httpx.AsyncClient) -> None:
    """It gives up for good on anything but a 200."""
    answer = await http.get("/api/orders/stream?order_id=cut", headers=EVENTS)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    Rest.refused(await http.get("/api/orders/stream?order_id=cut"), 503, 14)


async def test_vanished_browser_is_disconnected_within_minutes(shop: Edge) -> None:
    """Heartbeats that nobody acknowledges are data under way: while there are some, TCP sends no keepalive probes."""
    host, _, port = shop.target.partition(":")
    with socket.create_connection((host, int(port))) as browser:
        browser.sendall(b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n")
        browser.recv(1000)
        with other_end(shop.pid, browser) as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def other_end(pid: int, connection: socket.socket) -> socket.socket:
    """The accepted end of a connection, borrowed from the process that has it."""
    pidfd_getfd = ctypes.CDLL(None, use_errno=True).syscall
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not os.readlink(entry).startswith("socket:"):
                continue
            copy = pidfd_getfd(438, process, int(entry.name), 0)
            assert copy >= 0, os.strerror(ctypes.get_errno())
            end = socket.socket(fileno=copy)
            with suppress(OSError):
                if end.getpeername() == connection.getsockname():
                    return end
            end.close()
    finally:
        os.close(process)
    raise AssertionError("the process does not have it")
