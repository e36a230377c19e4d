"""A checkout whose responses are all lost: the page finds out what became of it, and nobody orders twice."""

import json

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.test_checkout_page import orders_of, ready
from tests.support.browser import needs_chromium, visit
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.storefront import Storefront

pytestmark = needs_chromium

CHECKOUT = "**/api/v1/carts/*:checkout"
LOST = "Only its response was lost."


async def lose_response(route: Route) -> None:
    await route.fetch()
    await route.abort()


async def lose_request(route: Route) -> None:
    await route.abort()


async def place_without_response(store: Storefront, *, arrives: bool = True) -> None:
    """Places the order, and is back in the shop's reach when the page has given up."""
    await store.page.route(CHECKOUT, lose_response if arrives else lose_request)
    await store.place_button.click()
    await store.message.get_by_text("You can try again: you will not order twice.").wait_for()
    await store.page.unroute(CHECKOUT)


async def come_to_the_front(page: Page) -> None:
    await page.wait_for_timeout(1_100)  # a cart that was read within a second is not read again
    await page.evaluate("dispatchEvent(new Event('focus'))")


async def kept_checkout(page: Page) -> str | None:
    kept: str | None = await page.evaluate("sessionStorage.getItem('shop.checkout')")
    return kept


@pytest.mark.parametrize("event", ["focus", "reload"])
async def test_order_is_shown_after(store: Storefront, rest: Rest, event: str) -> None:
    product = await rest.product(name=f"Lost lamp {event}")
    await ready(store, product["name"])
    await place_without_response(store)
    if event == "focus":
        await come_to_the_front(store.page)
    else:
        await store.page.reload()
    await store.confirmed()
    await store.page.get_by_text(LOST).wait_for()
    await store.wait_for_status("PLACED")
    await expect(store.page.locator("#cart-count")).to_be_hidden()
    assert len(await orders_of(rest, product)) == 1
    assert await kept_checkout(store.page) is None
    await store.page.get_by_role("link", name="All your orders").click()
    await store.page.locator(".orders li", has_text=product["name"]).wait_for()


async def test_order_is_told_in_another_view(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Left lamp")
    await ready(store, "Left lamp")
    await place_without_response(store)
    await store.page.goto(store.page.url.partition("#")[0] + "#/")
    await come_to_the_front(store.page)
    notice = store.notices.filter(has_text="was placed. Only the response of the shop was lost.")
    await notice.get_by_role("button", name="See it").click()
    await store.wait_for_status("PLACED")
    assert len(await orders_of(rest, product)) == 1


async def test_checkout_under_way_survives_a_reload(store: Storefront, rest: Rest) -> None:
    """The page has not heard of a failure yet."""
    product = await rest.product(name="Hasty lamp")
    await ready(store, "Hasty lamp")

    async def answer_never(route: Route) -> None:
        await route.fetch()
        await store.page.evaluate("setTimeout(() => location.reload())")

    await store.page.route(CHECKOUT, answer_never, times=1)
    await store.place_button.click(no_wait_after=True)
    await store.confirmed()
    assert len(await orders_of(rest, product)) == 1


async def test_order_that_never_arrived_waits_for_a_click(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Unsent lamp")
    await ready(store, "Unsent lamp")
    await store.page.get_by_label("Bank transfer").check()
    await place_without_response(store, arrives=False)
    await come_to_the_front(store.page)
    await store.page.reload()
    await store.message.get_by_text("has not placed your order so far").wait_for()
    assert await orders_of(rest, product) == []
    await expect(store.field("Name")).to_have_value("Ada Lovelace")
    await store.place()
    (order,) = await orders_of(rest, product)
    assert order["shippingAddress"] == "12 St James's Square\nLondon"
    assert order["paymentMethod"] == "BANK_TRANSFER"


async def test_cart_changed_before_the_order_arrived(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Late lamp")
    await ready(store, "Late lamp")
    await place_without_response(store, arrives=False)
    cart = await store.kept_cart()
    body, headers = {"productId": product["id"], "quantity": 2}, {"cart-secret": cart["secret"]}
    (await rest.http.post(f"/api/v1/carts/{cart['id']}:set", json=body, headers=headers)).raise_for_status()
    await come_to_the_front(store.page)
    await store.notices.filter(has_text="your last order was not placed").wait_for()
    await expect(store.place_button).to_have_text("Place the order for €25.00")
    assert await orders_of(rest, product) == []
    assert await kept_checkout(store.page) is None
    await store.place()


async def test_form_changed_twice_finds_the_first_order(store: Storefront, rest: Rest) -> None:
    """Also after a change that the shop refuses."""
    product = await rest.product(name="Reworded lamp")
    await ready(store, "Reworded lamp")
    await place_without_response(store)
    await store.field("Name").fill("Ada \N{RIGHT-TO-LEFT OVERRIDE}Lovelace")
    await store.place_button.click()
    await expect(store.page.locator("#order-name-problem")).not_to_be_empty()
    await store.field("Name").fill("Grace Hopper")
    await store.place()
    await store.page.get_by_text("with the details that you gave then").wait_for()
    (order,) = await orders_of(rest, product)
    assert order["customer"]["name"] == "Ada Lovelace"


async def test_guest_who_signs_in_sees_the_order(shop_with_tokens: RunningShop, staff: Rest) -> None:
    """The sign-in ends the guest's cart. The order is the guest's, and its ticket opens it."""
    product = await staff.product(name="Signed lamp")
    async with visit(shop_with_tokens.url) as opened:
        store = Storefront(opened.page)
        await ready(store, "Signed lamp")
        await place_without_response(store)
        secret = json.loads(await kept_checkout(opened.page) or "")["secret"]
        await store.sign_in(shop_with_tokens.token("signing-ada"))
        await store.confirmed()
        await store.page.get_by_text(LOST).wait_for()
        await store.wait_for_status("PLACED")
        await store.page.reload()
        await store.wait_for_status("PLACED")
        assert not [each.url for each in opened.requests if secret in each.url]
    assert len(await orders_of(staff, product)) == 1


async def test_customer_whose_order_never_arrived_is_asked_after_the_merge(
    shop_with_tokens: RunningShop, staff: Rest
) -> None:
    product = await staff.product(name="Unsigned lamp")
    async with visit(shop_with_tokens.url) as opened:
        store = Storefront(opened.page)
        await ready(store, "Unsigned lamp")
        await place_without_response(store, arrives=False)
        await store.sign_in(shop_with_tokens.token("unsigned-ada"))
        while await kept_checkout(opened.page) is not None:
            await opened.page.wait_for_timeout(50)
        await expect(store.place_button).to_be_enabled()
        assert await orders_of(staff, product) == []
        await store.place()
    assert len(await orders_of(staff, product)) == 1


async def test_cart_that_cannot_be_merged_is_not_ordered_by_itself(shop_with_tokens: RunningShop, staff: Rest) -> None:
    product = await staff.product(name="Apart lamp")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "CART_FULL", "domain": "shop"}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=400, json={"code": 9, "message": "the cart has enough", "details": [info]})

    async with visit(shop_with_tokens.url) as opened:
        store = Storefront(opened.page)
        await ready(store, "Apart lamp")
        await place_without_response(store, arrives=False)
        await opened.page.route("**/api/v1/carts:merge", refuse)
        await store.sign_in(shop_with_tokens.token("apart-ada"))
        await store.notices.filter(has_text="bring in the other cart").wait_for()
        await expect(store.page.locator("#checkout .empty")).to_be_visible()
        assert await orders_of(staff, product) == []
        assert await kept_checkout(opened.page) is not None
