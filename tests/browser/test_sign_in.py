"""Signing in on the page: the cart of the guest, one's orders, and the end of a token."""

import asyncio
import json

import pytest
from playwright.async_api import Route, expect

from tests.support.browser import Visit, needs_chromium
from tests.support.eventually import eventually
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.storefront import Storefront

pytestmark = needs_chromium


@pytest.fixture
def store(guarded: Visit) -> Storefront:
    return Storefront(guarded.page)


async def test_sign_in_merges_the_carts(store: Storefront, shop_with_tokens: RunningShop, staff: Rest) -> None:
    for name in ("Own plate", "Shared plate", "Guest plate"):
        await staff.product(name=name)
    token = shop_with_tokens.token("merging-ada")
    await store.sign_in(token)
    await store.notices.filter(has_text="You are signed in as merging-ada.").wait_for()
    await store.add("Own plate")
    await store.add("Shared plate")
    await store.page.get_by_role("button", name="Sign out").click()
    await expect(store.page.locator("#cart-count")).to_be_hidden()
    await store.add("Shared plate")
    await store.add("Guest plate")
    await store.sign_in(token)
    await expect(store.page.locator("#cart-count")).to_have_text("4")
    await store.open_cart()
    await expect(store.page.locator("#cart .line h3")).to_have_text(["Own plate", "Shared plate", "Guest plate"])
    await expect(store.line("Shared plate").get_by_label("Quantity")).to_have_value("2")
    assert await store.kept("shop.cart") is None


async def test_merge_that_caps_a_quantity_says_so(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    product = await staff.product(name="Countless plate")
    token = shop_with_tokens.token("capped-ada")
    headers = {"Authorization": f"Bearer {token}"}
    cart = (await staff.http.get("/api/v1/carts:mine", headers=headers)).json()
    body = {"productId": product["id"], "quantity": 100_000_000}
    (await staff.http.post(f"/api/v1/carts/{cart['id']}:set", json=body, headers=headers)).raise_for_status()
    await store.add("Countless plate")
    await store.sign_in(token)
    await store.notices.filter(has_text="as many pieces as it may have of: Countless plate").wait_for()
    await store.open_cart()
    await store.line("Countless plate").get_by_text("This is as many as a cart may have of it.").wait_for()


async def test_cart_that_is_created_during_the_sign_in_is_merged(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    """With an add that creates it, and one that waits for that."""
    await staff.product(name="Early plate 1")
    await staff.product(name="Early plate 2")
    signed_in = asyncio.Event()

    async def wait_for_sign_in(route: Route) -> None:
        response = await route.fetch()
        await signed_in.wait()
        await route.fulfill(response=response)

    await store.page.route("**/api/v1/carts", wait_for_sign_in)
    await store.page.fill("#search", "Early plate")
    for number in (1, 2):
        await store.card(f"Early plate {number}").get_by_role("button", name="Add to cart").click()
    token = shop_with_tokens.token("early-ada")
    await store.sign_in(token)
    signed_in.set()
    await expect(store.page.locator("#cart-count")).to_have_text("2")
    await eventually(lambda: is_forgotten(store), 10)
    cart = (await staff.http.get("/api/v1/carts:mine", headers={"Authorization": f"Bearer {token}"})).json()
    assert sorted(each["name"] for each in cart["items"]) == ["Early plate 1", "Early plate 2"]


async def is_forgotten(store: Storefront) -> bool:
    return await store.kept("shop.cart") is None


async def test_add_that_another_tab_has_merged_is_not_made_twice(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    """The response is lost, and the cart is merged before the add is sent again."""
    product = await staff.product(name="Merged plate")
    await staff.product(name="First plate")
    await store.add("First plate")
    guest = await store.kept_cart()
    headers = {"Authorization": f"Bearer {shop_with_tokens.token('elsewhere-ada')}"}
    adds = 0

    async def merge_after_the_first(route: Route) -> None:
        nonlocal adds
        adds += 1
        if adds > 1:
            return await route.continue_()
        await route.fetch()
        body = {"cartId": guest["id"], "secret": guest["secret"]}
        (await staff.http.post("/api/v1/carts:merge", json=body, headers=headers)).raise_for_status()
        await route.abort()
        return None

    await store.page.route("**/api/v1/carts/*:add", merge_after_the_first)
    card = await store.search("Merged plate")
    await card.get_by_role("button", name="Add to cart").click()
    await store.notices.filter(has_text="look there before you add it again").wait_for()
    await expect(store.page.locator("#cart-count")).to_be_hidden()
    assert await store.kept("shop.cart") is None, "a cart that a sign-in would merge"
    cart = (await staff.http.get("/api/v1/carts:mine", headers=headers)).json()
    assert [each["quantity"] for each in cart["items"] if each["productId"] == product["id"]] == [1]
    assert adds == 2


async def test_signed_in_customer_buys_follows_and_cancels(
    store: Storefront, guarded: Visit, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    product = await staff.product(name="Customer plate")
    await store.sign_in(shop_with_tokens.token("buying-ada"))
    order_id = await store.buy("Customer plate")
    await store.wait_for_status("PLACED")
    await expect(store.live).to_have_text("Live")
    await store.page.get_by_role("button", name="Cancel the order").click()
    await store.wait_for_status("CANCELLED")
    await expect(store.reached).to_have_text(["Placed", "Cancelled"])
    await expect(store.live).to_have_text("This was the last change.")
    assert (await staff.http.get(f"/api/v1/orders/{order_id}")).json()["status"] == "CANCELLED"
    await store.page.get_by_role("link", name="All your orders").click()
    row = store.page.locator(".orders li", has_text="Customer plate")
    await expect(row.locator(".badge")).to_have_text("Cancelled")
    assert await store.kept("shop.orders") is None, "the shop knows whose it is"
    assert guarded.problems == []
    assert product["name"] == "Customer plate"


async def test_orders_of_a_customer_come_page_by_page(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    product = await staff.product(name="Paged plate", stock=20)
    token = shop_with_tokens.token("paging-ada")
    for _ in range(12):
        body = staff.order_body(product["id"])
        headers = {"Authorization": f"Bearer {token}"}
        (await staff.http.post("/api/v1/orders", json=body, headers=headers)).raise_for_status()
    await store.sign_in(token)
    await store.page.get_by_role("link", name="Orders").click()
    rows = store.page.locator(".orders li")
    await expect(rows).to_have_count(10)
    await store.page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(12)
    await expect(rows.nth(10).get_by_role("link")).to_be_focused()
    await expect(store.page.get_by_role("button", name="Show more")).to_be_hidden()


async def test_demo_shop_signs_in_by_name(store: Storefront, staff: Rest) -> None:
    await staff.product(name="Demo plate")
    await store.page.get_by_role("button", name="Sign in").click()
    dialog = store.page.get_by_role("dialog", name="Sign in")
    await dialog.get_by_label("Your name").fill("demo-ada")
    await dialog.get_by_role("button", name="Continue").click()
    await expect(store.page.locator(".who")).to_contain_text("demo-ada")
    await store.buy("Demo plate")


async def test_reload_keeps_the_sign_in_and_a_new_tab_does_not(
    store: Storefront, shop_with_tokens: RunningShop
) -> None:
    await store.sign_in(shop_with_tokens.token("staying-ada"))
    await store.page.reload()
    await expect(store.page.locator(".who")).to_contain_text("staying-ada")
    other = await store.page.context.new_page()
    await other.goto(shop_with_tokens.url)
    await other.get_by_role("button", name="Sign in").wait_for()


async def test_text_that_is_no_token_is_told_in_the_dialog(store: Storefront) -> None:
    await store.page.get_by_role("button", name="Sign in").click()
    dialog = store.page.get_by_role("dialog", name="Sign in")
    await dialog.get_by_label("Token").fill("not a token")
    await dialog.get_by_role("button", name="Sign in with this token").click()
    await expect(dialog.get_by_role("alert")).to_have_text("This is no token, or it has expired.")
    await store.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(store.page.get_by_role("button", name="Sign in")).to_be_focused()


async def test_token_that_the_shop_refuses_ends_the_sign_in(store: Storefront, shop_with_tokens: RunningShop) -> None:
    token = shop_with_tokens.token("refused-ada")
    head, claims, signature = token.split(".")
    await store.page.get_by_role("button", name="Sign in").click()
    dialog = store.page.get_by_role("dialog", name="Sign in")
    await dialog.get_by_label("Token").fill(f"{head}.{claims}.{signature[::-1]}")
    await dialog.get_by_role("button", name="Sign in with this token").click()
    await store.notices.filter(has_text="The shop does not accept this token.").wait_for()
    await store.page.get_by_role("button", name="Sign in").wait_for()


async def test_shop_without_guests_asks_to_sign_in_and_loses_no_click(
    store: Storefront, shop_with_tokens: RunningShop, staff: Rest
) -> None:
    """What a shop with AUTH_GUESTS=false answers to a guest."""
    await staff.product(name="Members' plate")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TOKEN_REQUIRED", "domain": "shop"}

    async def refuse(route: Route) -> None:
        await route.fulfill(
            status=401, body=json.dumps({"code": 16, "message": "a token is needed", "details": [info]})
        )

    await store.page.route("**/api/v1/carts", refuse)
    card = await store.search("Members' plate")
    await card.get_by_role("button", name="Add to cart").click()
    dialog = store.page.get_by_role("dialog", name="Sign in")
    await dialog.get_by_text("Sign in to fill a cart.").wait_for()
    await dialog.get_by_label("Token").fill(shop_with_tokens.token("member-ada"))
    await dialog.get_by_role("button", name="Sign in with this token").click()
    await expect(card.locator(".in-cart")).to_have_text("1 in cart")


async def test_shop_without_tokens_offers_no_sign_in(opened: Visit) -> None:
    await opened.page.locator(".product, #none:visible").first.wait_for()
    assert await opened.page.get_by_role("button", name="Sign in").count() == 0
