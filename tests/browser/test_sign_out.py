"""Signing out: nothing of the customer stays on the page, and no order is lost or made twice."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.test_checkout_page import orders_of, ready
from tests.browser.test_late_responses import go_to
from tests.browser.test_lost_checkout import kept_checkout, place_without_response
from tests.support.browser import Visit, needs_chromium
from tests.support.held import hold
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.storefront import Storefront

pytestmark = needs_chromium

FIELDS = ("Name", "E-mail", "Phone (optional)", "Address", "Notes (optional)")
PERSONAL = ("Ada Lovelace", "ada@example.com", "St James")
INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TOKEN_EXPIRED", "domain": "shop"}
EXPIRED: dict[str, Any] = {"code": 16, "message": "the token has expired", "details": [INFO]}


@pytest.fixture
def store(guarded: Visit) -> Storefront:
    return Storefront(guarded.page)


async def sign_out(store: Storefront) -> None:
    await store.page.get_by_role("button", name="Sign out").click()
    await store.page.get_by_role("button", name="Sign in").first.wait_for()


async def assert_nothing_personal(page: Page) -> None:
    """Neither in what is shown, nor in what is hidden, nor in what the tab keeps."""
    fields = "[...document.querySelectorAll('input, textarea')].map(each => each.value)"
    found = await page.evaluate(f"JSON.stringify([document.body.innerHTML, {fields}, {{ ...sessionStorage }}])")
    assert [text for text in PERSONAL if text in found] == []


async def test_form_of_a_customer_leaves_with_them(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    """A guest of another tab then fills the cart, and the checkout is shown again."""
    await staff.product(name="Private lamp")
    await store.sign_in(shop_with_tokens.token("private-ada"))
    await ready(store, "Private lamp")
    await store.page.get_by_label("Bank transfer").check()
    await sign_out(store)
    await expect(store.page.locator("#checkout .empty")).to_be_visible()
    await assert_nothing_personal(store.page)
    guest = Storefront(await store.page.context.new_page())
    await guest.page.goto(shop_with_tokens.url)
    await guest.add("Private lamp")
    await expect(store.place_button).to_be_enabled()
    for label in FIELDS:
        await expect(store.field(label)).to_have_value("")
    await expect(store.page.get_by_label("Card")).to_be_checked()


async def test_form_that_was_left_leaves_too(store: Storefront, shop_with_tokens: RunningShop, staff: Rest) -> None:
    await staff.product(name="Hidden lamp")
    await store.sign_in(shop_with_tokens.token("hidden-ada"))
    await ready(store, "Hidden lamp")
    await go_to(store.page, "#/")
    await sign_out(store)
    await assert_nothing_personal(store.page)


async def test_order_leaves_with_its_customer(store: Storefront, shop_with_tokens: RunningShop, staff: Rest) -> None:
    """At once, while a change of the cart is still under way."""
    await staff.product(name="Watched lamp")
    await store.sign_in(shop_with_tokens.token("watching-ada"))
    await store.buy("Watched lamp")
    await store.wait_for_status("PLACED")
    held = await hold(store.page, "**/api/v1/carts:mine")
    await store.page.wait_for_timeout(1_100)
    await store.page.evaluate("dispatchEvent(new Event('focus'))")
    await held.wait()
    await sign_out(store)
    await store.page.get_by_role("dialog", name="Sign in").get_by_text("Sign in to see this order.").wait_for()
    await assert_nothing_personal(store.page)
    await held.release()


async def test_cart_leaves_with_its_customer(store: Storefront, shop_with_tokens: RunningShop, staff: Rest) -> None:
    """An add that is under way, and one that waits for it, become none of the guest's."""
    for number in (1, 2, 3):
        await staff.product(name=f"Owned lamp {number}")
    token = shop_with_tokens.token("owning-ada")
    await store.sign_in(token)
    await store.add("Owned lamp 1")
    await store.page.fill("#search", "Owned lamp")
    held = await hold(store.page, "**/api/v1/carts/*:add")
    for number in (2, 3):
        await store.card(f"Owned lamp {number}").get_by_role("button", name="Add to cart").click()
    await held.wait()
    await sign_out(store)
    await expect(store.page.locator("#cart-count")).to_be_hidden()
    await held.release()
    await store.notices.filter(has_text="You signed out before this was done.").wait_for()
    await expect(store.page.locator("#cart-count")).to_be_hidden()
    assert await store.kept("shop.cart") is None
    cart = (await staff.http.get("/api/v1/carts:mine", headers={"Authorization": f"Bearer {token}"})).json()
    assert [each["name"] for each in cart["items"]] == ["Owned lamp 1", "Owned lamp 2"]


@pytest.mark.parametrize("arrives", [True, False])
async def test_lost_checkout_is_found_after_the_next_sign_in(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest, *, arrives: bool
) -> None:
    """The tab keeps nothing that was entered, only what asks the shop for the order."""
    product = await staff.product(name=f"Forgotten lamp {arrives}")
    token = shop_with_tokens.token(f"forgetting-ada-{arrives}")
    await store.sign_in(token)
    await ready(store, product["name"])
    await place_without_response(store, arrives=arrives)
    assert "Ada Lovelace" in (await kept_checkout(store.page) or "")
    await sign_out(store)
    await assert_nothing_personal(store.page)
    await store.sign_in(token)
    if arrives:
        notice = store.notices.filter(has_text="Your last order was placed.")
        await notice.get_by_role("button", name="Your orders").click()
        await store.page.locator(".orders li", has_text=product["name"]).wait_for()
    else:
        await store.message.get_by_text("has not placed your order so far").wait_for()
        await expect(store.field("Name")).to_have_value("")
        await store.fill_in()
        await store.place()
    assert await kept_checkout(store.page) is None
    assert len(await orders_of(staff, product)) == 1


async def test_lost_checkout_is_none_of_who_signs_in_next(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    product = await staff.product(name="Others' lamp")
    await store.sign_in(shop_with_tokens.token("other-ada"))
    await ready(store, "Others' lamp")
    await place_without_response(store)
    await sign_out(store)
    await store.sign_in(shop_with_tokens.token("other-grace"))
    await expect(store.page.locator("#checkout .empty")).to_be_visible()
    assert await kept_checkout(store.page) is None
    await expect(store.notices.filter(has_text="order")).to_have_count(0)
    assert len(await orders_of(staff, product)) == 1


async def test_expired_token_keeps_what_was_sent(store: Storefront, shop_with_tokens: RunningShop, staff: Rest) -> None:
    """But shows it to who has sent it only."""
    product = await staff.product(name="Expiring lamp")
    token = shop_with_tokens.token("expiring-ada")
    await store.sign_in(token)
    await ready(store, "Expiring lamp")

    async def refuse(route: Route) -> None:
        await route.fulfill(status=401, json=EXPIRED)

    await store.page.route("**/api/v1/carts/*:checkout", refuse, times=1)
    await store.place_button.click()
    await store.notices.filter(has_text="Your sign-in has expired.").wait_for()
    await expect(store.page.locator("#checkout .empty")).to_be_visible()
    await expect(store.field("Name")).to_have_value("")
    await store.sign_in(token)
    await expect(store.field("Name")).to_have_value("Ada Lovelace")
    await store.place()
    assert len(await orders_of(staff, product)) == 1


async def test_late_order_is_not_shown_to_a_guest(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    """They are told its number, and the customer finds it after the next sign-in."""
    product = await staff.product(name="Overtaken lamp")
    await store.sign_in(shop_with_tokens.token("overtaken-ada"))
    await ready(store, "Overtaken lamp")
    held = await hold(store.page, "**/api/v1/carts/*:checkout")
    await store.place_button.click()
    await held.wait()
    await sign_out(store)
    await held.release()
    (order,) = await orders_of(staff, product)
    await store.notices.filter(has_text=f"Your order {order['number']} was placed.").wait_for()
    assert store.page.url.endswith("#/checkout")
    await assert_nothing_personal(store.page)
    assert await store.kept("shop.orders") is None


async def test_late_refusal_of_a_token_does_not_end_another(store: Storefront, shop_with_tokens: RunningShop) -> None:
    await store.sign_in(shop_with_tokens.token("earlier-ada"))
    await expect(store.notices).to_contain_text("You are signed in as earlier-ada.")
    held, released = asyncio.Event(), asyncio.Event()

    async def refuse_late(route: Route) -> None:
        held.set()
        await released.wait()
        await route.fulfill(status=401, json=EXPIRED)

    await store.page.route("**/api/v1/carts:mine", refuse_late, times=1)
    await store.page.wait_for_timeout(1_100)
    await store.page.evaluate("dispatchEvent(new Event('focus'))")
    await asyncio.wait_for(held.wait(), 15)
    await sign_out(store)
    await store.sign_in(shop_with_tokens.token("later-ada"))
    async with store.page.expect_response("**/api/v1/carts:mine"):
        released.set()
    await store.page.wait_for_timeout(300)
    await expect(store.page.locator(".who")).to_contain_text("later-ada")
