"""The checkout of the page: what is seen is what is bought, once."""

import asyncio
from typing import Any

from playwright.async_api import Route, expect

from tests.browser.test_cart_page import reprice
from tests.support.browser import needs_chromium
from tests.support.rest import Rest
from tests.support.storefront import Storefront

pytestmark = needs_chromium


async def orders_of(rest: Rest, product: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest orders that have a product."""
    orders = (await rest.http.get("/api/v1/orders", params={"pageSize": "50"})).json()["orders"]
    return [order for order in orders if any(item["productId"] == product["id"] for item in order["items"])]


async def ready(store: Storefront, name: str) -> None:
    """Has a product in the cart, and the checkout filled in."""
    await store.add(name)
    await store.begin_checkout()
    await store.fill_in()


async def test_page_places_and_follows_an_order(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Browser lamp", stock=2)
    order_id = await store.buy("Browser lamp")
    await store.wait_for_status("PLACED")
    order = (await rest.http.get(f"/api/v1/orders/{order_id}")).json()
    assert order["items"][0]["productId"] == product["id"]
    assert order["customer"] == {"name": "Ada Lovelace", "email": "ada@example.com", "phone": ""}
    assert order["shippingAddress"] == "12 St James's Square\nLondon"
    assert order["paymentMethod"] == "CARD"
    await store.page.get_by_text(order["number"]).wait_for()
    for verb in ("process", "deliver", "receive"):
        (await rest.http.post(f"/api/v1/orders/{order_id}:{verb}", json={})).raise_for_status()
    await store.wait_for_status("RECEIVED")
    await expect(store.reached).to_have_text(["Placed", "Packed", "On its way", "Received"])
    await expect(store.page.locator("#cart-count")).to_be_hidden()
    assert await rest.stock(product["id"]) == 1


async def test_order_is_placed_by_keyboard_only(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Tabbed beacon")
    page = store.page
    await page.reload()

    async def tab_to(text: str, *, limit: int = 60) -> None:
        for _ in range(limit):
            await page.keyboard.press("Tab")
            focused = await page.evaluate(
                """() => {
                  const node = document.activeElement;
                  const label = node.labels?.[0]?.innerText ?? "";
                  return [node.getAttribute("aria-label") ?? "", label, node.innerText ?? ""].join(" ");
                }"""
            )
            if text in focused:
                assert await page.evaluate("document.activeElement.matches(':focus-visible')")
                return
        raise AssertionError(f"no way to {text!r} by keyboard")

    await page.locator(".product").first.wait_for()
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.focus(".brand")
    await tab_to("Search")
    await page.keyboard.type("Tabbed beacon")
    await expect(page.locator(".product")).to_have_count(1)
    await tab_to("Add to cart")
    await page.keyboard.press("Enter")
    await expect(page.locator("#cart-count")).to_have_text("1")
    await page.focus(".brand")
    await tab_to("Cart")
    await page.keyboard.press("Enter")
    await tab_to("One more")
    await page.keyboard.press("Space")
    await expect(page.locator("#cart-total")).to_have_text("€25.00")
    await tab_to("Check out")
    await page.keyboard.press("Enter")
    await expect(store.place_button).to_be_enabled()
    for label, text in (("Name", "Ada"), ("E-mail", "ada@example.com"), ("Address", "12 St James's Square")):
        await tab_to(label)
        await page.keyboard.type(text)
    await tab_to("Card")
    await page.keyboard.press("ArrowDown")
    await tab_to("Place the order")
    await page.keyboard.press("Enter")
    await store.confirmed()
    (order,) = await orders_of(rest, product)
    assert order["items"][0]["quantity"] == 2
    assert order["paymentMethod"] == "BANK_TRANSFER"


async def test_double_click_is_one_order(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Clicked lamp")
    await ready(store, "Clicked lamp")
    await store.place_button.dblclick()
    await store.confirmed()
    assert len(await orders_of(rest, product)) == 1


async def test_two_checkouts_at_once_are_one_order(store: Storefront, rest: Rest) -> None:
    """Two tabs: no button is out of use in the other one. Both show the one order."""
    product = await rest.product(name="Doubled lamp")
    await ready(store, "Doubled lamp")
    other = Storefront(await store.page.context.new_page())
    await other.page.goto(store.page.url)
    await expect(other.place_button).to_be_enabled()
    await other.fill_in()
    both = asyncio.Barrier(2)

    async def meet(route: Route) -> None:
        await both.wait()
        await route.continue_()

    for tab in (store, other):
        await tab.page.route("**/api/v1/carts/*:checkout", meet, times=1)
        await tab.place_button.click(no_wait_after=True)
    await store.page.get_by_role("heading", name="Thank you").or_(store.message.locator(".callout")).first.wait_for()
    await other.page.get_by_role("heading", name="Thank you").or_(other.message.locator(".callout")).first.wait_for()
    assert len(await orders_of(rest, product)) == 1


async def test_lost_response_is_asked_for_again(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Silent lamp")
    await ready(store, "Silent lamp")
    lost = 0

    async def lose_the_first(route: Route) -> None:
        nonlocal lost
        lost += 1
        if lost > 1:
            return await route.continue_()
        await route.fetch()
        await route.abort()
        return None

    await store.page.route("**/api/v1/carts/*:checkout", lose_the_first)
    await store.place()
    assert lost == 2
    assert len(await orders_of(rest, product)) == 1


async def test_form_changed_after_a_lost_response_orders_nothing_else(store: Storefront, rest: Rest) -> None:
    """The order exists already: the page shows that one, and says with which details."""
    product = await rest.product(name="Changed lamp")
    await ready(store, "Changed lamp")
    is_away = True

    async def lose(route: Route) -> None:
        if not is_away:
            return await route.continue_()
        await route.fetch()
        await route.abort()
        return None

    await store.page.route("**/api/v1/carts/*:checkout", lose)
    await store.place_button.click()
    await store.message.get_by_text("You can try again: you will not order twice.").wait_for()
    is_away = False
    await store.field("Name").fill("Grace Hopper")
    await store.place()
    await store.page.get_by_text("with the details that you gave then").wait_for()
    (order,) = await orders_of(rest, product)
    assert order["customer"]["name"] == "Ada Lovelace"


async def test_risen_price_is_told_with_both_totals_and_can_be_accepted(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Rising lamp")
    await ready(store, "Rising lamp")
    await reprice(rest, product, "15")
    await store.place_button.click()
    await store.message.get_by_text("the total was €12.50, and it is €15.00 now").wait_for()
    assert await orders_of(rest, product) == []
    await store.message.get_by_role("button", name="Order for €15.00").click()
    await store.confirmed()
    (order,) = await orders_of(rest, product)
    assert order["total"] == {"currencyCode": "EUR", "units": "15", "nanos": 0}


async def test_fallen_price_needs_no_question(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Falling lamp")
    await ready(store, "Falling lamp")
    await reprice(rest, product, "9")
    await store.place()
    (order,) = await orders_of(rest, product)
    assert order["total"]["units"] == "9"


async def test_cart_changed_elsewhere_is_shown_before_it_is_ordered(store: Storefront, rest: Rest) -> None:
    """As on another device: this page hears nothing of the change."""
    product = await rest.product(name="Shared lamp")
    await ready(store, "Shared lamp")
    cart = await store.kept_cart()
    body = {"productId": product["id"], "quantity": 2}
    headers = {"cart-secret": cart["secret"]}
    (await rest.http.post(f"/api/v1/carts/{cart['id']}:set", json=body, headers=headers)).raise_for_status()
    await store.place_button.click()
    await store.message.get_by_text("Nothing was ordered.").wait_for()
    assert await orders_of(rest, product) == []
    await expect(store.place_button).to_have_text("Place the order for €25.00")
    await store.place()
    (order,) = await orders_of(rest, product)
    assert order["items"][0]["quantity"] == 2


async def test_change_in_another_tab_is_told_at_the_checkout(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Tabbed lamp")
    await ready(store, "Tabbed lamp")
    other = Storefront(await store.page.context.new_page())
    await other.page.goto(store.page.url.partition("#")[0])
    await other.add("Tabbed lamp")
    await store.message.get_by_text("Your cart has changed.").wait_for()
    await expect(store.place_button).to_have_text("Place the order for €25.00")
    await store.place()


async def test_product_sold_out_at_the_checkout_is_told_at_its_item(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Scarce lamp", stock=1)
    await rest.product(name="Plenty lamp")
    await store.add("Plenty lamp")
    await ready(store, "Scarce lamp")
    await rest.order(product["id"])
    await store.place_button.click()
    await store.message.get_by_text("There is not enough left of an item. Nothing was ordered.").wait_for()
    item = store.page.locator("#checkout .summary li", has_text="Scarce lamp")
    await item.get_by_text("Sold out.").wait_for()
    await expect(store.place_button).to_be_disabled()
    await item.get_by_role("button", name="Remove").click()
    await expect(store.place_button).to_be_enabled()
    await expect(store.message).to_be_empty()
    await store.place()


async def test_product_deleted_at_the_checkout_is_told_at_its_item(store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Deleted lamp")
    await ready(store, "Deleted lamp")
    (await rest.http.delete(f"/api/v1/products/{product['id']}")).raise_for_status()
    await store.place_button.click()
    await store.message.get_by_text("An item is no longer sold. Nothing was ordered.").wait_for()
    await store.page.locator("#checkout .summary li").get_by_text("This is no longer sold.").wait_for()


async def test_missing_fields_are_told_at_the_field(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Formless lamp")
    await store.add("Formless lamp")
    await store.begin_checkout()
    await store.place_button.click()
    name = store.field("Name")
    await expect(name).to_be_focused()
    await expect(name).to_have_attribute("aria-invalid", "true")
    await expect(store.page.locator("#order-name-problem")).to_have_text("Please fill this in.")
    await store.fill_in()
    await store.field("E-mail").fill("nowhere")
    await store.place_button.click()
    await expect(store.page.locator("#order-email-problem")).to_have_text("This is no e-mail address.")
    # What only the shop refuses: a character that changes the direction of a text.
    await store.field("E-mail").fill("ada@example.com")
    await store.field("Name").fill("Ada \N{RIGHT-TO-LEFT OVERRIDE}Lovelace")
    await store.place_button.click()
    await expect(store.page.locator("#order-name-problem")).not_to_be_empty()
    await store.fill_in()
    await store.place()
