"""The cart of the page: what is in it stays true, whatever happens in between."""

import asyncio
import json
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.support.browser import needs_chromium
from tests.support.rest import Rest
from tests.support.storefront import Storefront

pytestmark = needs_chromium


async def reprice(rest: Rest, product: dict[str, Any], units: str) -> None:
    body = {"price": {"currencyCode": "EUR", "units": units, "nanos": 0}}
    path = f"/api/v1/products/{product['id']}"
    (await rest.http.patch(path, params={"updateMask": "price"}, json=body)).raise_for_status()


async def test_quantities_are_changed_in_the_cart(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Counted cup")
    await store.add("Counted cup")
    panel = await store.open_cart()
    line = store.line("Counted cup")
    for _ in range(3):
        await line.get_by_role("button", name="One more").click()
    await expect(panel.locator("#cart-total")).to_have_text("€50.00")
    await line.get_by_role("button", name="One less").click()
    await expect(panel.locator("#cart-total")).to_have_text("€37.50")
    # The page shows the sum before the shop has the quantity.
    async with store.page.expect_response(lambda each: '"quantity":7' in (each.request.post_data or "")):
        await line.get_by_label("Quantity").fill("7")
        await expect(panel.locator("#cart-total")).to_have_text("€87.50")
    await store.page.reload()
    await expect(store.page.locator("#cart-count")).to_have_text("7")
    await store.open_cart()
    await line.get_by_role("button", name="Remove").click()
    await panel.get_by_text("Your cart is empty.").wait_for()


async def test_clearing_the_cart_asks_first(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Cleared cup")
    await store.add("Cleared cup")
    panel = await store.open_cart()
    await panel.get_by_role("button", name="Clear the cart").click()
    await panel.get_by_role("button", name="No").click()
    await expect(store.line("Cleared cup")).to_have_count(1)
    await panel.get_by_role("button", name="Clear the cart").click()
    await panel.get_by_role("button", name="Yes, remove all items").click()
    await panel.get_by_text("Your cart is empty.").wait_for()


async def clear_during_a_change(store: Storefront, release: asyncio.Event) -> None:
    """Clears the cart while a change of a quantity is under way."""
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        response = await route.fetch()
        held.set()
        await release.wait()
        await route.fulfill(response=response)

    await store.page.route("**/api/v1/carts/*:set", hold, times=1)
    panel = await store.open_cart()
    await panel.get_by_role("button", name="Clear the cart").click()
    await panel.get_by_role("button", name="One more").first.click()
    await asyncio.wait_for(held.wait(), 15)
    await panel.get_by_role("button", name="Yes, remove all items").click(no_wait_after=True)


async def test_cart_with_own_change_under_way_is_cleared(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Hasty cup")
    await store.add("Hasty cup")
    release = asyncio.Event()
    await clear_during_a_change(store, release)
    release.set()
    await store.page.locator("#cart").get_by_text("Your cart is empty.").wait_for()
    await expect(store.notices).to_have_count(0)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_change_from_elsewhere_is_not_cleared(store: Storefront, rest: Rest, moment: str) -> None:
    """Whether the shop makes it before or after the change of this tab."""
    await rest.product(name=f"Kept cup {moment}")
    other = await rest.product(name=f"Foreign cup {moment}")
    await store.add(f"Kept cup {moment}")
    cart = await store.kept_cart()

    async def add_elsewhere() -> None:
        body, headers = {"productId": other["id"], "quantity": 1}, {"cart-secret": cart["secret"]}
        (await rest.http.post(f"/api/v1/carts/{cart['id']}:add", json=body, headers=headers)).raise_for_status()

    if moment == "before":
        await add_elsewhere()
    release = asyncio.Event()
    await clear_during_a_change(store, release)
    if moment == "after":
        await add_elsewhere()
    release.set()
    await store.notices.filter(has_text="The cart was changed elsewhere. Nothing was removed.").wait_for()
    await expect(store.page.locator("#cart .line")).to_have_count(2)


async def test_add_whose_response_is_lost_adds_once(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Lost cup")
    keys: list[str] = []

    async def lose_the_first(route: Route) -> None:
        keys.append(json.loads(route.request.post_data or "")["requestId"])
        if len(keys) > 1:
            return await route.continue_()
        await route.fetch()
        await route.abort()
        return None

    await store.page.route("**/api/v1/carts/*:add", lose_the_first)
    await store.add("Lost cup")
    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_cart_that_has_ended_loses_no_click(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Old cup")
    await rest.product(name="New cup")
    await store.add("Old cup")
    cart = await store.kept_cart()
    (await rest.http.delete(f"/api/v1/carts/{cart['id']}", headers={"cart-secret": cart["secret"]})).raise_for_status()
    card = await store.search("New cup")
    await card.get_by_role("button", name="Add to cart").click()
    await store.notices.filter(has_text="New cup is in your cart.").wait_for()
    await expect(card.locator(".in-cart")).to_have_text("1 in cart")
    await store.open_cart()
    await expect(store.page.locator("#cart .line h3")).to_have_text(["New cup"])
    assert (await store.kept_cart())["id"] != cart["id"]


async def test_two_tabs_have_one_cart(store: Storefront, rest: Rest) -> None:
    await rest.product(name="First cup")
    await rest.product(name="Second cup")
    other = Storefront(await store.page.context.new_page())
    await other.page.goto(store.page.url)
    # Neither tab knows of a cart yet: both create one at once.
    cards = [await store.search("First cup"), await other.search("Second cup")]
    for card in cards:
        await card.get_by_role("button", name="Add to cart").click(no_wait_after=True)
    for tab in (store, other):
        await expect(tab.page.locator("#cart-count")).to_have_text("2")
    await other.open_cart()
    await other.line("First cup").get_by_role("button", name="One more").click()
    await expect(store.page.locator("#cart-count")).to_have_text("3")
    await expect(cards[0].locator(".in-cart")).to_have_text("2 in cart")


async def test_two_carts_created_at_once_become_one(store: Storefront, rest: Rest) -> None:
    """The shop creates both, before either tab knows of its own."""
    await rest.product(name="Left cup")
    await rest.product(name="Right cup")
    other = Storefront(await store.page.context.new_page())
    await other.page.goto(store.page.url)
    both = asyncio.Barrier(2)
    created: list[str] = []

    async def meet(route: Route) -> None:
        response = await route.fetch()
        created.append((await response.json())["cart"]["id"])
        await both.wait()
        await route.fulfill(response=response)

    for tab, name in ((store, "Left cup"), (other, "Right cup")):
        await tab.page.route("**/api/v1/carts", meet)
        await (await tab.search(name)).get_by_role("button", name="Add to cart").click(no_wait_after=True)
    for tab in (store, other):
        await expect(tab.page.locator("#cart-count")).to_have_text("2")
    assert len(set(created)) == 2
    assert (await store.kept_cart())["id"] in created


async def test_cart_that_has_ended_is_gone_in_all_tabs(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Ended cup")
    await store.add("Ended cup")
    other = Storefront(await store.page.context.new_page())
    await other.page.goto(store.page.url)
    await expect(other.page.locator("#cart-count")).to_have_text("1")
    cart = await store.kept_cart()
    (await rest.http.delete(f"/api/v1/carts/{cart['id']}", headers={"cart-secret": cart["secret"]})).raise_for_status()
    await store.page.evaluate("import('/pages/cart.js').then(({ refresh }) => refresh())")
    await expect(other.page.locator("#cart-count")).to_be_hidden()


async def test_deleted_product_is_told_and_can_be_removed(store: Storefront, rest: Rest) -> None:
    gone = await rest.product(name="Withdrawn cup")
    await rest.product(name="Kept cup")
    await store.add("Withdrawn cup")
    await store.add("Kept cup")
    (await rest.http.delete(f"/api/v1/products/{gone['id']}")).raise_for_status()
    await store.page.reload()
    panel = await store.open_cart()
    line = store.line("Withdrawn cup")
    await line.get_by_text("This is no longer sold.").wait_for()
    await panel.get_by_text("Some items cannot be ordered.").wait_for()
    await line.locator(".callout").get_by_role("button", name="Remove").click()
    await expect(line).to_have_count(0)
    await expect(panel.locator("#cart-total")).to_have_text("€12.50")
    await expect(panel.get_by_text("Some items cannot be ordered.")).to_have_count(0)


async def test_sold_out_product_is_told_and_can_be_set_to_what_is_left(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Wanted cup", stock=5)
    await store.add("Wanted cup")
    await store.open_cart()
    line = store.line("Wanted cup")
    await line.get_by_label("Quantity").fill("4")
    await expect(store.page.locator("#cart-total")).to_have_text("€50.00")
    await rest.order(product["id"], quantity=3)
    await store.page.reload()
    await store.open_cart()
    await line.get_by_text("Only 2 are left.").wait_for()
    await line.get_by_role("button", name="Take 2").click()
    await expect(line.get_by_label("Quantity")).to_have_value("2")
    await expect(line.locator(".callout")).to_have_count(0)
    await rest.order(product["id"], quantity=2)
    await store.page.reload()
    await store.open_cart()
    await line.locator(".callout", has_text="Sold out.").wait_for()


async def test_changed_price_is_told_and_can_be_accepted(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Dearer cup")
    await store.add("Dearer cup")
    await reprice(rest, product, "15")
    await store.page.reload()
    await store.open_cart()
    line = store.line("Dearer cup")
    await line.get_by_text("The price was €12.50 when you put it in. It is €15.00 now.").wait_for()
    await line.get_by_role("button", name="Accept the price").click()
    await expect(line.locator(".callout")).to_have_count(0)
    await expect(store.page.locator("#cart-total")).to_have_text("€15.00")


async def test_catalogue_that_is_away_is_told(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Remembered cup")
    await store.add("Remembered cup")

    async def stale(route: Route) -> None:
        response = await route.fetch()
        await route.fulfill(json={**await response.json(), "stale": True})

    await store.page.route("**/api/v1/carts/*", stale)
    await store.page.reload()
    panel = await store.open_cart()
    await panel.get_by_text("The catalogue does not respond.").wait_for()
    await expect(store.line("Remembered cup")).to_have_count(1)


@pytest.mark.parametrize("reason", ["CART_FULL", "QUANTITY_LIMIT"])
async def test_refused_add_is_told_in_a_sentence(store: Storefront, rest: Rest, reason: str) -> None:
    name = f"Refused cup {reason}"
    await rest.product(name=name)
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "shop", "metadata": {}}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=400, json={"code": 9, "message": "the cart has enough", "details": [info]})

    await store.page.route("**/api/v1/carts/*:add", refuse)
    card = await store.search(name)
    button = card.get_by_role("button", name="Add to cart")
    await button.click()
    await store.notices.filter(has_text="The cart has enough.").wait_for()
    await expect(button).to_be_enabled()


async def test_secret_of_a_cart_is_in_no_url(store: Storefront, rest: Rest) -> None:
    urls: list[str] = []
    store.page.on("request", lambda request: urls.append(request.url))
    await rest.product(name="Secret cup")
    await store.buy("Secret cup")
    secret = (await store.kept_cart())["secret"]
    assert [url for url in urls if "carts" in url]
    assert not [url for url in [*urls, store.page.url] if secret in url]
    assert secret not in await store.page.content()
