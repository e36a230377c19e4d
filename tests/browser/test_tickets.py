"""The page and README's client in a shop with tokens: a guest follows an order by its ticket."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from playwright.async_api import Locator, Route

from local.settings import LOOPBACK, REPOSITORY
from order.tickets import Kind, TicketConfig, Tickets
from tests.support.browser import Visit, needs_chromium, visit
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.rest import Rest
from tests.support.shop import RunningShop

pytestmark = needs_chromium

SHORT_TTL = 5
"""Seconds until a ticket of these tests expires, whereas a shop's own takes a minute or more."""

REMEMBER_STREAMS = """
() => {
  const original = EventSource;
  window.streams = [];
  window.EventSource = function (path) { streams.push(new original(path)); return streams.at(-1); };
  window.EventSource.CLOSED = original.CLOSED;
}
"""


@pytest.fixture
async def staff(shop_with_tokens: RunningShop) -> AsyncIterator[Rest]:
    headers = shop_with_tokens.authorization(staff=True)
    async with httpx.AsyncClient(base_url=shop_with_tokens.url, headers=headers, timeout=30) as http:
        yield Rest(http)


async def move(staff: Rest, order_id: str, *verbs: str) -> None:
    for verb in verbs:
        (await staff.http.post(f"/api/v1/orders/{order_id}:{verb}", json={})).raise_for_status()


async def order_one(opened: Visit, product: dict[str, Any]) -> Locator:
    """Orders a product on the page. Returns the order's line."""
    await opened.page.fill("#search", product["name"])
    await opened.page.locator("#products tr", has_text=product["name"]).get_by_role("button", name="Order one").click()
    line = opened.page.locator("#orders li", has_text=product["name"])
    await line.locator("strong", has_text="PLACED").wait_for()
    return line


async def newest_order(staff: Rest) -> str:
    orders = (await staff.http.get("/api/v1/orders", params={"pageSize": "1"})).json()["orders"]
    return str(orders[0]["id"])


def stream_ticket(shop: RunningShop, order_id: str) -> str:
    """A ticket for a stream that expires within seconds, as the shop itself would sign it."""
    config = TicketConfig(keys=shop.settings.state / "ticket-keys", ttl=dict.fromkeys(Kind, SHORT_TTL))
    return Tickets(config).issue(Kind.STREAM, UUID(order_id)).text


async def test_guest_places_and_follows_an_order(shop_with_tokens: RunningShop, staff: Rest) -> None:
    product = await staff.product(name="Guest lamp", stock=2)
    async with visit(shop_with_tokens.url) as opened:
        line = await order_one(opened, product)
        assert await line.get_by_role("button").count() == 0, "a guest cannot cancel an order"
        await move(staff, await newest_order(staff), "process", "deliver", "receive")
        await line.locator("strong", has_text="PLACED → PROCESSED → DELIVERED → RECEIVED").wait_for()
        assert await staff.stock(product["id"]) == 1

        (exchange,) = [each for each in opened.requests if each.url.endswith(":ticket")]
        (stream,) = [each for each in opened.requests if "/api/orders/stream" in each.url]
        secret = exchange.headers["order-ticket"]
        answer = await exchange.response()
        assert answer
        ticket = (await answer.json())["ticket"]
        assert stream.url.endswith(f"&ticket={ticket}")
        assert not [each.url for each in opened.requests if secret in each.url]
        for shown in (opened.page.url, await opened.page.content(), *opened.console):
            assert secret not in shown
            assert ticket not in shown
    assert opened.problems == []


async def test_page_gets_a_new_ticket_when_one_has_expired(shop_with_tokens: RunningShop, staff: Rest) -> None:
    """It shows each status once, although the new stream begins with the first one again."""
    product = await staff.product(name="Slow lamp", stock=2)
    tickets = 0

    async def expire_soon(route: Route) -> None:
        nonlocal tickets
        tickets += 1
        if tickets > 1:
            await route.continue_()
        else:
            ticket = stream_ticket(shop_with_tokens, re.findall(r"orders/(.*):ticket", route.request.url)[0])
            await route.fulfill(json={"ticket": ticket, "expireTime": "2026-01-01T00:00:00Z"})

    async with Proxy(int(shop_with_tokens.target.rpartition(":")[2])).running() as proxy:
        async with visit(f"http://{LOOPBACK}:{proxy.port}") as opened:
            await opened.page.route("**/*:ticket", expire_soon)
            line = await order_one(opened, product)
            order_id = await newest_order(staff)
            await move(staff, order_id, "process")
            await line.locator("strong", has_text="PLACED → PROCESSED").wait_for()
            await asyncio.sleep(SHORT_TTL)
            proxy.cut()
            await line.get_by_text("The live status goes on with a new ticket.").wait_for(timeout=20_000)
            await move(staff, order_id, "deliver", "receive")
            await line.locator("strong", has_text=re.compile("^PLACED → PROCESSED → DELIVERED → RECEIVED$")).wait_for()
    assert tickets == 2


async def test_page_says_when_it_gets_no_new_ticket(shop_with_tokens: RunningShop, staff: Rest) -> None:
    product = await staff.product(name="Refused lamp", stock=2)
    tickets = 0

    async def expire_then_refuse(route: Route) -> None:
        nonlocal tickets
        tickets += 1
        ticket = stream_ticket(shop_with_tokens, re.findall(r"orders/(.*):ticket", route.request.url)[0])
        if tickets > 1:
            await route.continue_(headers={**route.request.headers, "order-ticket": ticket})
        else:
            await route.fulfill(json={"ticket": ticket, "expireTime": "2026-01-01T00:00:00Z"})

    async with Proxy(int(shop_with_tokens.target.rpartition(":")[2])).running() as proxy:
        async with visit(f"http://{LOOPBACK}:{proxy.port}") as opened:
            await opened.page.route("**/*:ticket", expire_then_refuse)
            await opened.page.evaluate(REMEMBER_STREAMS)
            line = await order_one(opened, product)
            await asyncio.sleep(SHORT_TTL)
            proxy.cut()
            await line.get_by_text("The ticket of the live status has expired.").wait_for(timeout=20_000)
            await opened.page.locator("#problem", has_text="ticket").wait_for()
            assert await opened.page.evaluate("streams.map(each => each.readyState)") == [2], "closed for good"
    assert tickets == 2


@pytest.mark.parametrize("mode", ["none", "jwt"])
async def test_client_in_readme_follows_an_order(mode: str, request: pytest.FixtureRequest) -> None:
    shop: RunningShop = request.getfixturevalue("shop_with_tokens" if mode == "jwt" else "shop")
    (client,) = re.findall(r"(?s)```js\n(.*?)```", (REPOSITORY / "README.md").read_text())
    async with httpx.AsyncClient(base_url=shop.url, headers=shop.authorization(staff=True)) as http:
        product = await Rest(http).product()
        async with httpx.AsyncClient(base_url=shop.url) as guest:
            order = await Rest(guest).order(product["id"])
        async with visit(shop.url) as opened:
            await opened.page.evaluate(f"async (order) => {{ {client} }}", order)
            await eventually(lambda: any("PLACED" in line for line in opened.console), 10)
            await move(Rest(http), order["id"], "cancel")
            await eventually(lambda: any("CANCELLED" in line for line in opened.console), 10)
    assert opened.problems == []
