"""Responses that arrive when their view has been left: they replace nothing that is shown meanwhile."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.test_checkout_page import orders_of, ready
from tests.support.browser import Visit, needs_chromium
from tests.support.held import Held, hold
from tests.support.rest import Rest
from tests.support.storefront import Storefront

pytestmark = needs_chromium


async def go_to(page: Page, view: str) -> None:
    await page.evaluate("view => { location.hash = view; }", view)


async def open_slowly(store: Storefront, rest: Rest) -> tuple[dict[str, Any], Held]:
    """Opens an order whose response is held."""
    order = await rest.order((await rest.product())["id"])
    held = await hold(store.page, f"**/api/v1/orders/{order['id']}")
    await go_to(store.page, f"#/orders/{order['id']}")
    await held.wait()
    return order, held


def streams_of(opened: Visit, order: dict[str, Any]) -> list[str]:
    """The tickets and streams that the page has asked for."""
    urls = [request.url for request in opened.requests if order["id"] in request.url]
    return [url for url in urls if "/stream?" in url or url.endswith(":ticket")]


async def test_late_order_does_not_replace_another(opened: Visit, store: Storefront, rest: Rest) -> None:
    late, held = await open_slowly(store, rest)
    order = await rest.order((await rest.product())["id"])
    await go_to(store.page, f"#/orders/{order['id']}")
    await expect(store.live).to_have_text("Live")
    await held.release()
    await expect(store.page.locator("#order")).to_contain_text(order["number"])
    await expect(store.page.locator("#order")).not_to_contain_text(late["number"])
    (await rest.http.post(f"/api/v1/orders/{order['id']}:process", json={})).raise_for_status()
    await store.wait_for_status("PROCESSED")
    assert streams_of(opened, late) == []


async def test_late_order_does_not_replace_itself(opened: Visit, store: Storefront, rest: Rest) -> None:
    """It was opened, left and opened again."""
    order, held = await open_slowly(store, rest)
    await go_to(store.page, "#/")
    await go_to(store.page, f"#/orders/{order['id']}")
    await expect(store.live).to_have_text("Live")
    await held.release()
    await expect(store.live).to_have_text("Live")
    assert len(streams_of(opened, order)) == 2, "one ticket and one stream"


async def test_order_that_was_left_is_not_followed(opened: Visit, store: Storefront, rest: Rest) -> None:
    order, held = await open_slowly(store, rest)
    await go_to(store.page, "#/")
    await held.release()
    assert streams_of(opened, order) == []


async def test_order_of_a_checkout_that_was_left_is_told(store: Storefront, rest: Rest) -> None:
    """And opens when they want to see it."""
    product = await rest.product(name="Impatient lamp")
    await ready(store, "Impatient lamp")
    held = await hold(store.page, "**/api/v1/carts/*:checkout")
    await store.place_button.click()
    await held.wait()
    await go_to(store.page, "#/")
    await held.release()
    assert store.page.url.endswith("#/")
    (order,) = await orders_of(rest, product)
    notice = store.notices.filter(has_text=f"Your order {order['number']} was placed.")
    await notice.get_by_role("button", name="See it").click()
    await store.wait_for_status("PLACED")


async def test_failure_of_a_checkout_that_was_left_is_told(opened: Visit, store: Storefront, rest: Rest) -> None:
    product = await rest.product(name="Scarce lamp", stock=1)
    await ready(store, "Scarce lamp")
    await rest.order(product["id"])
    held = await hold(store.page, "**/api/v1/carts/*:checkout")
    await store.place_button.click()
    await held.wait()
    await go_to(store.page, "#/")
    await held.release()
    await expect(store.notices).to_contain_text("is sold out.")
    assert len(await orders_of(rest, product)) == 1
    assert [problem for problem in opened.problems if "Failed to load" not in problem] == []


async def test_sign_in_that_was_closed_does_not_happen(guarded: Visit) -> None:
    page = guarded.page
    held = await hold(page, "**/demo/token")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("dialog", name="Sign in").get_by_role("button", name="Continue").click()
    await held.wait()
    await page.keyboard.press("Escape")
    await held.release()
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert await page.evaluate("sessionStorage.getItem('shop.token')") is None


@pytest.mark.parametrize("order_id", ["%", "%2e%2e", "00000000-0000-4000-8000-000000000000"])
async def test_address_of_no_order_is_told(store: Storefront, order_id: str) -> None:
    await go_to(store.page, f"#/orders/{order_id}")
    await expect(store.page.locator("#order")).to_be_visible()
    await expect(store.page.locator("[data-notices] .notice")).to_be_visible()
