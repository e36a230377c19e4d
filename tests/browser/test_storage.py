"""What the browser keeps: tabs lose nothing of each other, and a browser that stores nothing loses no click."""

import asyncio

from playwright.async_api import expect

from tests.support.browser import needs_chromium, visit_without_storage
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.storefront import Storefront

pytestmark = needs_chromium

STORES_NOTHING = "This browser stores nothing for this page."

REMEMBER = """
async prefix => {
  const { rememberOrder } = await import("/pages/orders.js");
  const ids = Array.from({ length: 20 }, (_, number) => `${prefix}${number}`);
  await Promise.all(ids.map(id => rememberOrder({ id, ticket: "x" })));
}
"""
"""Remembers 20 orders."""

FULL_DISK = """
() => {
  IDBObjectStore.prototype.put = () => { throw new DOMException("full", "QuotaExceededError"); };
}
"""


async def test_orders_of_two_tabs_are_all_remembered(store: Storefront) -> None:
    other = Storefront(await store.page.context.new_page())
    await other.page.goto(store.page.url)
    await asyncio.gather(store.page.evaluate(REMEMBER, "left"), other.page.evaluate(REMEMBER, "right"))
    for tab in (store, other):
        ids = sorted(order["id"] for order in await tab.kept("shop.orders"))
        assert ids == sorted(f"{prefix}{number}" for prefix in ("left", "right") for number in range(20))


async def test_guest_buys_in_a_browser_that_stores_nothing(shop: RunningShop, rest: Rest) -> None:
    await rest.product(name="Unstored cup")
    await rest.product(name="Fleeting cup")
    async with visit_without_storage(shop.url) as opened:
        store = Storefront(opened.page)
        await store.add("Unstored cup")
        await store.notices.filter(has_text=STORES_NOTHING).wait_for()
        await store.add("Unstored cup")
        await store.buy("Fleeting cup")
        await store.wait_for_status("PLACED")
        await store.page.get_by_role("link", name="All your orders").click()
        await store.page.locator(".orders li", has_text="2 × Unstored cup, Fleeting cup").get_by_role("link").click()
        await store.wait_for_status("PLACED")
    assert opened.problems == []


async def test_customer_buys_in_a_browser_that_stores_nothing(shop_with_tokens: RunningShop, staff: Rest) -> None:
    await staff.product(name="Unstored plate")
    async with visit_without_storage(shop_with_tokens.url) as opened:
        store = Storefront(opened.page)
        await store.add("Unstored plate")
        await store.sign_in(shop_with_tokens.token("forgetful-ada"))
        await expect(store.page.locator("#cart-count")).to_have_text("1")
        await store.begin_checkout()
        await store.fill_in()
        await store.place()
        await store.wait_for_status("PLACED")
    assert opened.problems == []


async def test_cart_that_a_full_disk_does_not_keep_loses_no_click(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Crowded cup")
    await store.page.evaluate(FULL_DISK)
    await store.add("Crowded cup")
    await store.notices.filter(has_text=STORES_NOTHING).wait_for()
    await store.buy("Crowded cup")
    await store.wait_for_status("PLACED")
    await store.page.reload()
    await expect(store.page.locator("#cart-count")).to_be_hidden()
