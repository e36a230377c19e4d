"""A real browser's own EventSource against the real edge."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page

from tests.support.browser import needs_chromium, visit
from tests.support.rest import Rest
from tests.support.shop import RunningShop

pytestmark = needs_chromium

FOLLOW = """
(path) => new Promise((resolve) => {
  const seen = [];
  const stream = new EventSource(path);
  stream.onmessage = (event) => seen.push([event.lastEventId, JSON.parse(event.data).status]);
  stream.addEventListener("completed", () => { stream.close(); resolve(seen); });
})
"""

# An EventSource that is left open after `completed` reconnects, meets 204, and gives up for good.
LEFT_OPEN = """
(path) => new Promise((resolve) => {
  const seen = [];
  const stream = new EventSource(path);
  stream.onmessage = (event) => seen.push(JSON.parse(event.data).status);
  stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) resolve(seen); };
})
"""


@pytest.fixture
async def page(shop: RunningShop) -> AsyncIterator[Page]:
    async with visit(shop.url) as opened:
        yield opened.page
    # A browser logs what it could not load; the tests below load nothing that fails.
    assert opened.problems == []


async def move(rest: Rest, order: dict[str, Any], *verbs: str) -> None:
    for verb in verbs:
        (await rest.http.post(f"/api/v1/orders/{order['id']}:{verb}", json={})).raise_for_status()


async def test_event_source_follows_an_order_to_its_end(page: Page, rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    following = page.evaluate(FOLLOW, f"/api/orders/stream?order_id={order['id']}")
    task = asyncio.ensure_future(following)
    await asyncio.sleep(0.5)
    await move(rest, order, "process", "deliver", "receive")
    assert await asyncio.wait_for(task, 20) == [
        ["1", "PLACED"],
        ["2", "PROCESSED"],
        ["3", "DELIVERED"],
        ["4", "RECEIVED"],
    ]


async def test_open_event_source_stops_after_the_end(page: Page, rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    await move(rest, order, "cancel")
    seen = await page.evaluate(LEFT_OPEN, f"/api/v1/orders/{order['id']}/status/stream")
    assert seen == ["PLACED", "CANCELLED"], "each status once, although it reconnected"
