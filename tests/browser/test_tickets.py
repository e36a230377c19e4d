"""The page and README's client in a shop with tokens: a guest follows an order by its ticket."""

import asyncio
import re
from uuid import UUID

import httpx
import pytest
from playwright.async_api import Route, expect

from local.settings import LOOPBACK, REPOSITORY
from order.tickets import Kind, TicketConfig, Tickets
from tests.support.browser import needs_chromium, visit
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.storefront import Storefront

pytestmark = needs_chromium

STATUSES = ["Placed", "Packed", "On its way", "Received"]

SHORT_TTL = 5
"""Seconds until a ticket of these tests expires, whereas a shop's own takes a minute or more."""

REMEMBER_TOLD = """
() => {
  const node = document.querySelector("#order .spoken[role=status]");
  window.told = [node.textContent];
  new MutationObserver(() => told.push(node.textContent)).observe(node, { childList: true, subtree: true });
}
"""
"""Remembers what a screen reader is told of the status."""

REMEMBER_STREAMS = """
() => {
  const original = EventSource;
  window.streams = [];
  window.EventSource = function (path) { streams.push(new original(path)); return streams.at(-1); };
  window.EventSource.CLOSED = original.CLOSED;
}
"""


async def move(staff: Rest, order_id: str, *verbs: str) -> None:
    for verb in verbs:
        (await staff.http.post(f"/api/v1/orders/{order_id}:{verb}", json={})).raise_for_status()


def stream_ticket(shop: RunningShop, order_id: str) -> str:
    """A ticket for a stream that expires within seconds, as the shop itself would sign it."""
    config = TicketConfig(keys=shop.settings.state / "ticket-keys", ttl=dict.fromkeys(Kind, SHORT_TTL))
    return Tickets(config).issue(Kind.STREAM, UUID(order_id)).text


async def test_guest_places_and_follows_an_order(shop_with_tokens: RunningShop, staff: Rest) -> None:
    product = await staff.product(name="Guest lamp", stock=2)
    async with visit(shop_with_tokens.url) as opened:
        store = Storefront(opened.page)
        order_id = await store.buy(product["name"])
        await store.wait_for_status("PLACED")
        cancel = store.page.get_by_role("button", name="Cancel the order")
        assert await cancel.count() == 0, "a guest cannot cancel an order"
        await move(staff, order_id, "process", "deliver", "receive")
        await store.wait_for_status("RECEIVED")
        await expect(store.reached).to_have_text(STATUSES)
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


async def test_guest_finds_an_order_of_this_browser_again(shop_with_tokens: RunningShop, staff: Rest) -> None:
    product = await staff.product(name="Found lamp", stock=2)
    async with visit(shop_with_tokens.url) as opened:
        store = Storefront(opened.page)
        await store.buy(product["name"])
        await store.page.reload()
        await store.wait_for_status("PLACED")
        await store.page.get_by_role("link", name="All your orders").click()
        await store.page.locator(".orders li", has_text="Found lamp").get_by_role("link").click()
        await store.wait_for_status("PLACED")
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
            store = Storefront(opened.page)
            order_id = await store.buy(product["name"])
            await store.wait_for_status("PLACED")
            await opened.page.evaluate(REMEMBER_TOLD)
            await move(staff, order_id, "process")
            await store.wait_for_status("PROCESSED")
            await asyncio.sleep(SHORT_TTL)
            proxy.cut()
            await expect(store.live).to_have_text("Live again, with a new ticket", timeout=20_000)
            await move(staff, order_id, "deliver", "receive")
            await store.wait_for_status("RECEIVED")
            await expect(store.reached).to_have_text(STATUSES)
            assert await opened.page.evaluate("told") == [f"Status: {status}" for status in STATUSES]
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
            store = Storefront(opened.page)
            await store.buy(product["name"])
            await store.wait_for_status("PLACED")
            await asyncio.sleep(SHORT_TTL)
            proxy.cut()
            await expect(store.live).to_have_text("The ticket of the live status has expired.", timeout=20_000)
            assert await opened.page.evaluate("streams.map(each => each.readyState)") == [2], "closed for good"
    assert tickets == 2


async def test_reconnect_is_shown(shop_with_tokens: RunningShop, staff: Rest) -> None:
    """While the stream is cut, and when it is live again. No status is missed or shown twice."""
    product = await staff.product(name="Cut lamp", stock=2)
    async with Proxy(int(shop_with_tokens.target.rpartition(":")[2])).running() as proxy:
        async with visit(f"http://{LOOPBACK}:{proxy.port}") as opened:
            store = Storefront(opened.page)
            order_id = await store.buy(product["name"])
            await expect(store.live).to_have_text("Live")
            await opened.page.context.set_offline(True)
            proxy.cut()
            await expect(store.live).to_have_text("Reconnecting…")
            await move(staff, order_id, "process", "deliver")
            await opened.page.context.set_offline(False)
            await expect(store.live).to_have_text("Live again", timeout=30_000)
            await store.wait_for_status("DELIVERED")
            await expect(store.reached).to_have_text(STATUSES[:3])
            await move(staff, order_id, "receive")
            await expect(store.live).to_have_text("This was the last change.")


@pytest.mark.parametrize("mode", ["none", "jwt"])
async def test_client_in_readme_follows_an_order(mode: str, request: pytest.FixtureRequest) -> None:
    shop: RunningShop = request.getfixturevalue("shop_with_tokens" if mode == "jwt" else "shop")
    (client,) = re.findall(r"(?s)```js\n(.*?)```", (REPOSITORY / "README.md").read_text())
    async with httpx.AsyncClient(base_url=shop.url, headers=shop.authorization(staff=True)) as http:
        product = await Rest(http).product()
        async with httpx.AsyncClient(base_url=shop.url) as guest:
            created = (await guest.post("/api/v1/carts", json={})).json()
            item, secret = {"productId": product["id"], "quantity": 1}, {"Cart-Secret": created["secret"]}
            added = await guest.post(f"/api/v1/carts/{created['cart']['id']}:add", json=item, headers=secret)
        async with visit(shop.url) as opened:
            run = f"async ([cart, secret]) => {{ {client}; return order.id; }}"
            order = await opened.page.evaluate(run, [added.json(), created["secret"]])
            await eventually(lambda: any("PLACED" in line for line in opened.console), 10)
            await move(Rest(http), order, "cancel")
            await eventually(lambda: any("CANCELLED" in line for line in opened.console), 10)
    assert opened.problems == []
