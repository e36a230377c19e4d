"""Who may use the page for staff, in a shop that verifies tokens."""

from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import expect

from tests.support.browser import needs_chromium, visit
from tests.support.held import hold
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.staff_page import StaffPage

pytestmark = needs_chromium


@pytest.fixture
async def staff(shop_with_tokens: RunningShop) -> AsyncIterator[StaffPage]:
    async with visit(f"{shop_with_tokens.url}/staff") as opened:
        yield StaffPage(opened.page)


@pytest.fixture
async def rest(shop_with_tokens: RunningShop) -> AsyncIterator[Rest]:
    headers = shop_with_tokens.authorization(staff=True)
    async with httpx.AsyncClient(base_url=shop_with_tokens.url, headers=headers, timeout=30) as http:
        yield Rest(http)


async def test_staff_sign_in_with_their_token(staff: StaffPage, rest: Rest, shop_with_tokens: RunningShop) -> None:
    """A guest's order is among those that staff see."""
    order = await rest.order((await rest.product())["id"])
    await expect(staff.page.get_by_role("heading", name="Sign in as staff")).to_be_visible()
    await expect(staff.page.locator("#products, #orders")).to_have_count(2)
    assert not await staff.page.locator("#products").is_visible()
    await staff.sign_in(shop_with_tokens.token("grace", staff=True))
    await expect(staff.page.get_by_role("heading", name="Products")).to_be_visible()
    await expect(staff.page.locator("#access")).to_be_empty()
    await staff.open_orders()
    row = staff.order(order["number"])
    await row.get_by_role("button", name="Process").click()
    await expect(row.locator(".badge")).to_have_text("Processed")


async def test_token_lasts_as_long_as_the_tab(staff: StaffPage, shop_with_tokens: RunningShop) -> None:
    await staff.sign_in(shop_with_tokens.token("grace", staff=True))
    await staff.page.locator("#product-filter").wait_for()
    await staff.page.reload()
    await staff.page.locator("#product-filter").wait_for()
    assert await staff.page.evaluate("localStorage.length") == 0
    assert await staff.page.evaluate("indexedDB.databases()") == []
    await staff.page.get_by_role("button", name="Sign out").click()
    await expect(staff.page.get_by_role("heading", name="Sign in as staff")).to_be_visible()
    assert not await staff.page.locator("#products").is_visible()


async def test_customer_is_told_that_the_page_is_for_staff(staff: StaffPage, shop_with_tokens: RunningShop) -> None:
    await staff.sign_in(shop_with_tokens.token("ada"))
    await expect(staff.page.get_by_role("heading", name="This page is for staff only")).to_be_visible()
    await expect(staff.page.locator("#access")).to_contain_text("You are signed in as ada, a customer.")
    assert not await staff.page.locator("#products").is_visible()
    assert not await staff.page.locator("#orders").is_visible()


async def test_demo_token_is_not_offered_to_staff(staff: StaffPage) -> None:
    """The shop gives none of staff."""
    await staff.page.locator("#access").get_by_role("button", name="Sign in").click()
    await expect(staff.dialog.get_by_label("Token")).to_be_visible()
    await expect(staff.dialog.get_by_label("Your name")).to_have_count(0)
    await expect(staff.dialog).to_contain_text("make token ROLE=staff")


@pytest.mark.parametrize("before", ["Bearer ", "installing\n", "ä."])
async def test_text_around_a_token_is_refused(staff: StaffPage, shop_with_tokens: RunningShop, before: str) -> None:
    """Copied with it, from a terminal: no request could carry it."""
    await staff.sign_in(before + shop_with_tokens.token("grace", staff=True))
    await expect(staff.dialog.get_by_role("alert")).to_have_text("This is no token, or it has expired.")


async def test_token_that_the_shop_refuses_signs_out(staff: StaffPage, shop_with_tokens: RunningShop) -> None:
    token = shop_with_tokens.token("grace", staff=True)
    await staff.sign_in(token[:-20] + "A" * 20)
    await expect(staff.notices).to_contain_text("The shop does not accept this token.")
    await expect(staff.page.get_by_role("heading", name="Sign in as staff")).to_be_visible()


async def test_late_check_of_a_token_opens_nothing(staff: StaffPage, shop_with_tokens: RunningShop) -> None:
    """Who had it has signed out meanwhile."""
    held = await hold(staff.page, "**/api/v1/orders/*:process")
    await staff.sign_in(shop_with_tokens.token("grace", staff=True))
    await held.wait()
    await staff.page.get_by_role("button", name="Sign out").click()
    await expect(staff.page.get_by_role("heading", name="Sign in as staff")).to_be_visible()
    await held.release()
    await expect(staff.page.get_by_role("heading", name="Sign in as staff")).to_be_visible()
    await expect(staff.page.locator("#products")).to_be_hidden()


async def test_orders_leave_with_who_signs_out(staff: StaffPage, rest: Rest, shop_with_tokens: RunningShop) -> None:
    """Also if the token expires while an order is open."""
    order = await rest.order((await rest.product())["id"])
    await staff.sign_in(shop_with_tokens.token("grace", staff=True))
    await staff.open_orders()
    await staff.page.get_by_role("searchbox", name="Search").fill("ada@example.com")
    await staff.order(order["number"]).get_by_role("button", name=order["number"], exact=True).click()
    await expect(staff.dialog).to_contain_text("ada@example.com")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TOKEN_EXPIRED", "domain": "shop"}
    expired = {"code": 16, "message": "the token has expired", "details": [info]}
    await staff.page.route("**/api/v1/orders?*", lambda route: route.fulfill(status=401, json=expired))
    await expect(staff.notices).to_contain_text("Your sign-in has expired.")
    await expect(staff.page.locator("dialog")).to_have_count(0)
    assert "ada@example.com" not in await staff.page.content()
    assert await staff.page.locator("#order-search").input_value() == ""
