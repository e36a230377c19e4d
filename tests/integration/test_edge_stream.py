"""Server-sent events at the edge: they pass as the sidecar sends them."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.support.edge import Edge, edge
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ["/api/orders/stream?order_id=abc", "/api/v1/orders/abc/status/stream"]
EVENTS = {"accept": "text/event-stream"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Edge]:
    async with edge() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(shop: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=shop.url, timeout=5) as client:
        yield client


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


async def test_a_sidecar_that_breaks_off_is_no_failure_to_an_event_source(http: httpx.AsyncClient) -> None:
    """It gives up for good on anything but a 200."""
    answer = await http.get("/api/orders/stream?order_id=cut", headers=EVENTS)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    Rest.refused(await http.get("/api/orders/stream?order_id=cut"), 503, 14)
