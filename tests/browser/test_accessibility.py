"""The pages for everybody: axe finds nothing, light and dark, at two widths, and in forced colours."""

from collections.abc import AsyncIterator
from typing import Literal

import pytest
from playwright.async_api import expect

from tests.support.axe import violations
from tests.support.browser import Visit, needs_chromium, visit
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.staff_page import StaffPage
from tests.support.storefront import Storefront

pytestmark = needs_chromium

Scheme = Literal["light", "dark"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_no_violation(store: Storefront, rest: Rest, scheme: Scheme, width: int) -> None:
    page = store.page
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": width, "height": 800})
    fits = "document.documentElement.scrollWidth <= innerWidth"
    name = f"Accessible bowl {scheme} {width}"
    product = await rest.product(name=name, stock=5, category="Kitchen", star=4.5, variant="blue")
    await rest.product(name=f"Gone bowl {scheme} {width}", stock=0, category="Kitchen")

    await page.fill("#search", f"bowl {scheme} {width}")
    await expect(page.locator(".product")).to_have_count(2)
    assert await store.violations() == [], "the catalogue"
    assert await page.evaluate(fits)

    await page.get_by_role("button", name=name, exact=True).click()
    assert await store.violations() == [], "a product"
    await page.keyboard.press("Escape")

    await store.open_cart()
    assert await store.violations() == [], "an empty cart"
    await page.keyboard.press("Escape")

    await store.add(name)
    await rest.http.patch(
        f"/api/v1/products/{product['id']}",
        params={"updateMask": "price"},
        json={"price": {"currencyCode": "EUR", "units": "20", "nanos": 0}},
    )
    await page.reload()
    await store.open_cart()
    await store.line(name).locator(".callout").wait_for()
    assert await store.violations() == [], "a cart with a problem, and a notice"
    assert await page.evaluate(fits)
    await page.keyboard.press("Escape")

    await store.begin_checkout()
    await store.place_button.click()
    assert await store.violations() == [], "the checkout, with what is missing"
    assert await page.evaluate(fits)

    await store.fill_in()
    order_id = await store.place()
    await store.wait_for_status("PLACED")
    assert await store.violations() == [], "an order"
    assert await page.evaluate(fits)
    await rest.http.post(f"/api/v1/orders/{order_id}:cancel", json={})
    await store.wait_for_status("CANCELLED")
    assert await store.violations() == [], "a cancelled order"

    await page.get_by_role("link", name="All your orders").click()
    await page.locator(".orders li").first.wait_for()
    assert await store.violations() == [], "the orders"
    assert await page.evaluate(fits)


@pytest.fixture
async def guarded(shop_with_tokens: RunningShop) -> AsyncIterator[Visit]:
    async with visit(shop_with_tokens.url) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_violation_in_the_sign_in(guarded: Visit, scheme: Scheme) -> None:
    page = guarded.page
    await page.emulate_media(color_scheme=scheme)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("dialog", name="Sign in").wait_for()
    assert await Storefront(page).violations() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_no_violation_on_the_page_for_staff(
    shop: RunningShop, rest: Rest, scheme: Scheme, width: int
) -> None:
    product = await rest.product(name=f"Staffed bowl {scheme} {width}")
    order = await rest.order(product["id"])
    async with visit(f"{shop.url}/staff") as opened:
        page, staff = opened.page, StaffPage(opened.page)
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size({"width": width, "height": 800})
        await staff.find(product["name"])
        assert await violations(page) == [], "the products"
        await page.get_by_role("button", name="New product").click()
        assert await violations(page) == [], "a new product"
        await page.keyboard.press("Escape")
        await staff.open_orders()
        await staff.order(order["number"]).wait_for()
        assert await violations(page) == [], "the orders"
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_page_works_in_forced_colours(store: Storefront, rest: Rest) -> None:
    """What only a colour would tell is told by a line, too."""
    await store.page.emulate_media(forced_colors="active")
    await rest.product(name="Contrast bowl")
    card = await store.add("Contrast bowl")
    assert await card.evaluate("node => getComputedStyle(node).borderStyle") == "solid"
    chosen = store.page.locator(".chips label").filter(has=store.page.locator(":checked"))
    assert await chosen.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"


async def test_reduced_motion_moves_nothing(store: Storefront, rest: Rest) -> None:
    await store.page.emulate_media(reduced_motion="reduce")
    await rest.product(name="Calm bowl")
    await store.add("Calm bowl")
    await store.open_cart()
    assert await store.page.evaluate("document.getAnimations().length") == 0


async def test_page_hardly_shifts_while_it_loads(store: Storefront, rest: Rest) -> None:
    """Cumulative layout shift: up to 0.1 is good (web.dev/cls)."""
    for number in range(8):
        await rest.product(name=f"Steady bowl {number}")
    await store.page.add_init_script(
        """
        window.shift = 0;
        new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
        }).observe({ type: "layout-shift", buffered: true });
        """
    )
    await store.page.reload()
    await store.page.locator(".product").first.wait_for()
    await store.page.wait_for_timeout(500)
    assert await store.page.evaluate("window.shift") < 0.1
