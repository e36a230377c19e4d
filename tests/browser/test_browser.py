"""A real browser: its own EventSource against the real edge, and the page that the edge serves."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Locator, Page

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


async def test_page_places_and_follows_an_order(page: Page, rest: Rest) -> None:
    product = await rest.product(name="Browser lamp", stock=2)
    await page.fill("#search", "browser lamp")
    row = page.locator("#products tr", has_text="Browser lamp")
    await row.get_by_role("button", name="Order one").click()
    await page.locator("#orders strong", has_text="PLACED").wait_for()
    orders = (await rest.http.get("/api/v1/orders", params={"pageSize": "1"})).json()["orders"]
    assert orders[0]["items"][0]["productId"] == product["id"]
    await move(rest, orders[0], "process", "deliver", "receive")
    await page.locator("#orders strong", has_text="PLACED → PROCESSED → DELIVERED → RECEIVED").wait_for()
    assert await rest.stock(product["id"]) == 1


async def search(page: Page, words: str) -> Locator:
    """The rows of what is found, of which there is one."""
    await page.fill("#search", words)
    row = page.locator("#products tr", has_text=words)
    await row.wait_for()
    return row


async def test_page_with_long_names_fits_a_phone(page: Page, rest: Rest) -> None:
    name = "Phone" + "x" * 195
    await rest.product(name=name, category="y" * 100, price={"currencyCode": "EUR", "units": "123456", "nanos": 0})
    await page.set_viewport_size({"width": 360, "height": 640})
    row = await search(page, name)
    box = await row.get_by_role("button", name="Order one").bounding_box()
    assert box
    assert box["x"] + box["width"] <= 360
    await row.get_by_role("button").click()
    await page.locator("#orders strong", has_text="PLACED").wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_sold_out_product_is_marked(page: Page, rest: Rest) -> None:
    await rest.product(name="Last lamp", stock=1)
    row = await search(page, "Last lamp")
    await row.get_by_role("button", name="Order one").click()
    sold_out = row.get_by_role("button", name="Sold out")
    await sold_out.wait_for()
    assert await sold_out.is_disabled()
    await page.reload()
    row = await search(page, "Last lamp")
    assert await row.get_by_role("button", name="Sold out").is_disabled()


async def test_search_without_results_shows_a_message(page: Page) -> None:
    nothing = page.get_by_text("Nothing found.")
    assert not await nothing.is_visible()
    await page.fill("#search", "no such thing anywhere")
    await nothing.wait_for()
    await page.fill("#search", "")
    await nothing.wait_for(state="hidden")


async def test_prices_have_decimals_of_their_currency(page: Page, rest: Rest) -> None:
    """None for the yen, two for the euro, three for the dinar of Kuwait."""
    for currency, units, nanos in (("JPY", "500", 0), ("EUR", "500", 0), ("KWD", "1", 125_000_000)):
        price = {"currencyCode": currency, "units": units, "nanos": nanos}
        await rest.product(name=f"Priced in {currency}", price=price)
    for currency, shown in (("JPY", "¥500"), ("EUR", "€500.00"), ("KWD", "KWD\N{NO-BREAK SPACE}1.125")):
        row = await search(page, f"Priced in {currency}")
        assert await row.locator(".price").inner_text() == shown
