"""The page for staff: products, stock, and orders that are moved on by hand."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.browser import Visit, needs_chromium, visit
from tests.support.held import hold
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.staff_page import StaffPage

pytestmark = needs_chromium


@pytest.fixture
async def opened(shop: RunningShop) -> AsyncIterator[Visit]:
    async with visit(f"{shop.url}/staff") as opened:
        yield opened


@pytest.fixture
def staff(opened: Visit) -> StaffPage:
    return StaffPage(opened.page)


async def price(rest: Rest, product_id: str, units: int) -> None:
    body = {"price": {"currencyCode": "EUR", "units": str(units)}}
    path = f"/api/v1/products/{product_id}"
    (await rest.http.patch(path, params={"updateMask": "price"}, json=body)).raise_for_status()


async def get(rest: Rest, path: str) -> dict[str, Any]:
    answer = await rest.http.get(path)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


async def test_page_loads_nothing_from_elsewhere(opened: Visit, staff: StaffPage, shop: RunningShop) -> None:
    await staff.open_orders()
    assert all(request.url.startswith((shop.url, "data:")) for request in opened.requests)
    assert opened.problems == [], "an error, or something that the policy forbids"


async def test_shop_without_tokens_is_open_and_says_so(staff: StaffPage) -> None:
    await expect(staff.page.locator("#access")).to_contain_text(
        "This shop has no sign-in: anyone who reaches this page"
    )
    await expect(staff.page.get_by_role("heading", name="Products")).to_be_visible()


async def test_product_is_created_by_keyboard_alone(staff: StaffPage, rest: Rest) -> None:
    keys = staff.page.keyboard
    await staff.page.get_by_role("button", name="New product").focus()
    await keys.press("Enter")
    await expect(staff.dialog.get_by_label("Name")).to_be_focused()
    for text in ("Keyboard <b>lamp</b>", "brass", "Lighting", "12,50"):
        await keys.type(text)
        await keys.press("Tab")
    await expect(staff.dialog.get_by_label("Currency")).to_have_value("EUR")
    await staff.dialog.get_by_label("Stock").focus()
    await keys.type("7")
    await keys.press("Enter")
    row = staff.product("Keyboard <b>lamp</b>")
    await expect(row).to_contain_text("€12.50")
    await staff.wait_for_focus("New product")
    [found] = (await get(rest, "/api/v1/products?search=keyboard+lamp"))["products"]
    assert (found["variant"], found["category"], found["stock"]) == ("brass", "Lighting", "7")
    assert found["price"] == {"currencyCode": "EUR", "units": "12", "nanos": 500_000_000}


async def test_form_says_at_each_field_what_is_wrong(staff: StaffPage, rest: Rest) -> None:
    existing = await rest.product(name="Taken lamp")
    await staff.page.get_by_role("button", name="New product").click()
    create = staff.dialog.get_by_role("button", name="Create")
    await staff.dialog.get_by_label("Price").fill("cheap")
    await create.click()
    await expect(staff.dialog.get_by_label("Price")).to_be_focused()
    await expect(staff.dialog.get_by_label("Price")).to_have_accessible_description("Must be an amount such as 12.50")
    await staff.dialog.get_by_label("Price").fill("12.505")
    await create.click()
    await expect(staff.dialog.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    await expect(staff.dialog.get_by_label("Price")).to_have_attribute("aria-invalid", "true")
    await staff.dialog.get_by_label("Name").fill("Taken lamp")
    await staff.dialog.get_by_label("Price").fill("12.5")
    await staff.dialog.get_by_label("SKU").fill(existing["sku"])
    await create.click()
    await expect(staff.dialog.get_by_role("alert")).to_contain_text("sku")
    await expect(staff.dialog.locator("[aria-invalid]")).to_have_count(0)


async def test_lost_answer_creates_one_product(staff: StaffPage, rest: Rest) -> None:
    """The page sends it again, with the same key."""

    async def lose_answer(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await staff.page.route("**/api/v1/products", lose_answer, times=1)
    await staff.page.get_by_role("button", name="New product").click()
    await staff.dialog.get_by_label("Name").fill("Lonely lamp")
    await staff.dialog.get_by_label("Price").fill("3")
    await staff.dialog.get_by_role("button", name="Create").click()
    await staff.product("Lonely lamp").wait_for()
    assert len((await get(rest, "/api/v1/products?search=lonely+lamp"))["products"]) == 1


async def test_edit_changes_what_was_changed(staff: StaffPage, rest: Rest) -> None:
    product = await rest.product(name="Plain lamp", description="Warm light.")
    row = await staff.find("Plain lamp")
    await row.get_by_role("button", name="Edit Plain lamp").click()
    await expect(staff.dialog.get_by_label("Price")).to_have_value("12.50")
    await staff.dialog.get_by_label("Price").fill("13")
    await staff.dialog.get_by_label("Picture").fill("/pictures/lamp.png")
    await staff.dialog.get_by_role("button", name="Save").click()
    await expect(row).to_contain_text("€13.00")
    await staff.wait_for_focus("Edit Plain lamp")
    found = await get(rest, f"/api/v1/products/{product['id']}")
    assert (found["imageUri"], found["description"]) == ("/pictures/lamp.png", "Warm light.")


async def test_edit_that_meets_another_shows_both(staff: StaffPage, rest: Rest) -> None:
    """What only one of the two changed is kept; where both did, staff decide."""
    product = await rest.product(name="Disputed lamp", category="Lamps")
    row = await staff.find("Disputed lamp")
    await row.get_by_role("button", name="Edit").click()
    await staff.dialog.get_by_label("Price").fill("15")
    await staff.dialog.get_by_label("Variant").fill("oak")
    other = {"price": {"currencyCode": "EUR", "units": "20"}, "category": "Lighting"}
    path = f"/api/v1/products/{product['id']}"
    (await rest.http.patch(path, params={"updateMask": "price,category"}, json=other)).raise_for_status()

    await staff.dialog.get_by_role("button", name="Save").click()
    await expect(staff.dialog.locator(".callout")).to_contain_text("Somebody else has changed this product")
    await expect(staff.dialog.locator(".theirs")).to_have_text(["Somebody else set: 20.00 EUR"])
    await expect(staff.dialog.get_by_label("Price")).to_have_value("15")
    await expect(staff.dialog.get_by_label("Category")).to_have_value("Lighting")
    assert (await get(rest, path))["price"]["units"] == "20", "nothing is overwritten without a second look"

    await staff.dialog.get_by_role("button", name="Save").click()
    await expect(row).to_contain_text("€15.00")
    found = await get(rest, path)
    assert (found["price"]["units"], found["category"], found["variant"]) == ("15", "Lighting", "oak")


async def test_stock_changes_by_a_difference(staff: StaffPage, rest: Rest) -> None:
    """So what is sold meanwhile is not lost."""
    product = await rest.product(name="Stacked lamp", stock=10)
    row = await staff.find("Stacked lamp")
    await row.get_by_role("button", name="Stock").click()
    await staff.dialog.get_by_label("Change by").fill("5")
    await expect(staff.dialog).to_contain_text("It will be 15, less what is sold meanwhile.")
    await rest.order(product["id"], 2)
    await staff.page.keyboard.press("Enter")
    await expect(row).to_contain_text("13")
    assert await rest.stock(product["id"]) == 13
    await row.get_by_role("button", name="Stock").click()
    await staff.dialog.get_by_label("Change by").fill("-14")
    await staff.page.keyboard.press("Enter")
    await expect(staff.dialog.get_by_role("alert")).to_contain_text("13")
    await staff.dialog.get_by_label("Change by").fill("none")
    await staff.page.keyboard.press("Enter")
    await expect(staff.dialog.get_by_label("Change by")).to_have_attribute("aria-invalid", "true")
    assert await rest.stock(product["id"]) == 13


async def test_lost_answers_change_the_stock_once(staff: StaffPage, rest: Rest) -> None:
    """The page sends the change three times, and staff send it again."""
    product = await rest.product(name="Counted lamp", stock=10)

    async def lose_answer(route: Route) -> None:
        await route.fetch()
        await route.abort()

    row = await staff.find("Counted lamp")
    await row.get_by_role("button", name="Stock").click()
    await staff.page.route("**/*:adjustStock", lose_answer, times=3)
    await staff.dialog.get_by_label("Change by").fill("5")
    await staff.page.keyboard.press("Enter")
    await expect(staff.dialog.get_by_role("alert")).to_contain_text("The shop cannot be reached")
    await staff.dialog.get_by_role("button", name="Change the stock").click()
    await expect(row).to_contain_text("15")
    assert await rest.stock(product["id"]) == 15


async def test_deleted_product_can_be_restored(staff: StaffPage, rest: Rest) -> None:
    product = await rest.product(name="Doomed lamp")
    row = await staff.find("Doomed lamp")
    await row.get_by_role("button", name="Delete").click()
    await expect(row).to_contain_text("Deleted")
    await staff.wait_for_focus("Restore Doomed lamp")
    assert "deleteTime" in await get(rest, f"/api/v1/products/{product['id']}")
    await staff.notices.get_by_role("button", name="Undo").click()
    await expect(row.get_by_role("button", name="Delete")).to_be_visible()
    await row.get_by_role("button", name="Delete").click()
    await expect(row).to_contain_text("Deleted")
    await staff.page.get_by_role("searchbox", name="Search").fill("")
    await staff.page.get_by_role("searchbox", name="Search").fill(product["id"])
    await expect(staff.page.locator("#product-rows tr")).to_have_count(1)
    await row.get_by_role("button", name="Restore").click()
    await expect(row.get_by_role("button", name="Delete")).to_be_visible()
    assert "deleteTime" not in await get(rest, f"/api/v1/products/{product['id']}")


async def test_changed_product_is_not_deleted_unseen(staff: StaffPage, rest: Rest) -> None:
    product = await rest.product(name="Contested lamp")
    row = await staff.find("Contested lamp")
    await price(rest, product["id"], 99)
    await row.get_by_role("button", name="Delete").click()
    await expect(staff.notices).to_contain_text("Somebody else has changed Contested lamp")
    await expect(row).to_contain_text("€99.00")
    assert "deleteTime" not in await get(rest, f"/api/v1/products/{product['id']}")


async def test_latest_search_wins(staff: StaffPage, rest: Rest) -> None:
    """However slow the answer to the one before is."""
    await rest.product(name="Slow birch")
    await rest.product(name="Fast birch")
    field = staff.page.get_by_role("searchbox", name="Search")

    async def delay(route: Route) -> None:
        await staff.page.wait_for_timeout(1_000)
        await route.continue_()

    await staff.page.route("**/api/v1/products?search=slow*", delay)
    async with staff.page.expect_request("**/api/v1/products?search=slow*"):
        await field.fill("slow birch")
    await field.fill("fast birch")
    await expect(staff.product("Fast birch")).to_be_visible()
    await staff.page.wait_for_timeout(1_200)
    await expect(staff.page.locator("#product-rows tr")).to_have_count(1)
    await expect(staff.product("Fast birch")).to_be_visible()


async def test_orders_come_and_change_while_one_looks(staff: StaffPage, rest: Rest) -> None:
    """Without a reload, and the row that has the focus keeps it."""
    product = await rest.product(name="Live lamp")
    first = await rest.order(product["id"])
    await staff.open_orders()
    row = staff.order(first["number"])
    await row.get_by_role("button", name=first["number"], exact=True).focus()
    second = await rest.order(product["id"])
    (await rest.http.post(f"/api/v1/orders/{first['id']}:process", json={})).raise_for_status()
    await expect(staff.order(second["number"])).to_be_visible(timeout=15_000)
    await expect(row).to_contain_text("Processed", timeout=15_000)
    await staff.wait_for_focus(first["number"])


async def test_hidden_page_asks_for_nothing(opened: Visit, staff: StaffPage) -> None:
    await staff.open_orders()
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    tell = "document.dispatchEvent(new Event('visibilitychange'))"
    await staff.page.evaluate(f"{hide % 'true'}; {tell}")
    before = len(opened.requests)
    await staff.page.wait_for_timeout(5_000)
    assert len(opened.requests) == before
    async with staff.page.expect_request("**/api/v1/orders?*"):
        await staff.page.evaluate(f"{hide % 'false'}; {tell}")


async def test_failed_refresh_is_told_and_ends(staff: StaffPage) -> None:
    await staff.open_orders()
    await staff.page.route(
        "**/api/v1/orders?*", lambda route: route.fulfill(status=503, json={"code": 14, "message": "x"})
    )
    await expect(staff.page.locator("#orders-live")).to_have_text("Not up to date. Trying again.", timeout=15_000)
    await staff.page.unroute("**/api/v1/orders?*")
    await expect(staff.page.locator("#orders-live")).to_contain_text("Updated at", timeout=15_000)


async def test_order_is_moved_on_by_keyboard(staff: StaffPage, rest: Rest) -> None:
    """The focus stays at the order, whatever its buttons are then."""
    order = await rest.order((await rest.product(name="Moved lamp"))["id"])
    await staff.open_orders()
    row = staff.order(order["number"])
    await row.get_by_role("button", name="Process").focus()
    for status, button in (("Processed", "Deliver"), ("Delivered", "Mark as received")):
        await staff.page.keyboard.press("Enter")
        await expect(row.locator(".badge")).to_have_text(status)
        await expect(row.get_by_role("button", name=button)).to_be_focused()
    await staff.page.keyboard.press("Enter")
    await expect(row.locator(".badge")).to_have_text("Received")
    await expect(row.get_by_role("button", name=order["number"], exact=True)).to_be_focused()
    assert (await get(rest, f"/api/v1/orders/{order['id']}"))["status"] == "RECEIVED"


async def test_cancel_asks_first(staff: StaffPage, rest: Rest) -> None:
    product = await rest.product(name="Unwanted lamp", stock=3)
    order = await rest.order(product["id"], 3)
    await staff.open_orders()
    row = staff.order(order["number"])
    await row.get_by_role("button", name="Cancel").click()
    await expect(staff.dialog.get_by_role("button", name="Go back")).to_be_focused()
    await staff.page.keyboard.press("Escape")
    await expect(row.get_by_role("button", name="Cancel")).to_be_focused()
    assert (await get(rest, f"/api/v1/orders/{order['id']}"))["status"] == "PLACED"
    await row.get_by_role("button", name="Cancel").click()
    await staff.dialog.get_by_role("button", name="Cancel the order").click()
    await expect(row.locator(".badge")).to_have_text("Cancelled")
    assert (await get(rest, f"/api/v1/orders/{order['id']}"))["status"] == "CANCELLED"


async def test_move_that_meets_another_tells_who_won(staff: StaffPage, rest: Rest) -> None:
    """An order is not packed because somebody meant to, if the customer has cancelled it."""
    order = await rest.order((await rest.product(name="Racing lamp"))["id"])
    await staff.open_orders()
    row = staff.order(order["number"])
    await row.get_by_role("button", name="Process").wait_for()
    await staff.page.route("**/api/v1/orders?*", lambda route: route.abort())
    (await rest.http.post(f"/api/v1/orders/{order['id']}:cancel", json={})).raise_for_status()
    await row.get_by_role("button", name="Process").click()
    await expect(staff.notices).to_contain_text(f"Somebody else was faster: {order['number']} is cancelled now.")
    await expect(row.locator(".badge")).to_have_text("Cancelled")


async def test_late_answer_does_not_undo_a_move(staff: StaffPage, rest: Rest) -> None:
    """The list was read before the move, and arrives after it."""
    order = await rest.order((await rest.product(name="Late lamp"))["id"])
    await staff.open_orders()
    row = staff.order(order["number"])
    held = await hold(staff.page, "**/api/v1/orders?*")
    await held.wait()
    await row.get_by_role("button", name="Process").click()
    await expect(row.locator(".badge")).to_have_text("Processed")
    await held.release()
    assert await row.locator(".badge").text_content() == "Processed"


async def test_order_shows_everything_about_it(staff: StaffPage, rest: Rest) -> None:
    order = await rest.order((await rest.product(name="Detailed lamp"))["id"], 2)
    await staff.open_orders()
    await staff.order(order["number"]).get_by_role("button", name=order["number"], exact=True).click()
    for text in ("Ada Lovelace", "ada@example.com", "+44 20", "St James's Square", "CARD", "2 × €12.50", "€25.00"):
        await expect(staff.dialog).to_contain_text(text)
    await staff.dialog.get_by_role("button", name="Process").click()
    await expect(staff.dialog.locator(".badge")).to_have_text("Processed")
    await expect(staff.dialog.get_by_role("button", name="Deliver")).to_be_focused()
    await staff.page.keyboard.press("Escape")
    await staff.wait_for_focus(order["number"])


async def test_late_order_opens_no_second_dialog(staff: StaffPage, rest: Rest) -> None:
    product = await rest.product(name="Twice opened lamp")
    slow, quick = await rest.order(product["id"]), await rest.order(product["id"])
    await staff.open_orders()
    released = asyncio.Event()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        await released.wait()
        await route.fulfill(response=answer)

    await staff.page.route(f"**/api/v1/orders/{slow['id']}", hold)
    for order in (slow, quick):
        await staff.order(order["number"]).get_by_role("button", name=order["number"], exact=True).click()
    await expect(staff.dialog.get_by_role("heading", name=quick["number"])).to_be_visible()
    async with staff.page.expect_response(f"**/api/v1/orders/{slow['id']}"):
        released.set()
    await staff.page.wait_for_timeout(300)
    await expect(staff.page.locator("dialog")).to_have_count(1)


async def test_late_list_does_not_undo_a_delete(staff: StaffPage, rest: Rest) -> None:
    """The list was read before the product was deleted, and arrives after it."""
    product = await rest.product(name="Revenant lamp")
    row = await staff.find(product["name"])
    held = await hold(staff.page, "**/api/v1/products?*")
    await staff.page.get_by_label("Sort").select_option("Name")
    await held.wait()
    await row.get_by_role("button", name="Delete").click()
    await row.get_by_role("button", name="Restore").wait_for()
    await held.release()
    await expect(row.get_by_role("button", name="Restore")).to_be_visible()


async def test_orders_are_found(staff: StaffPage, rest: Rest) -> None:
    product = await rest.product(name="Sought lamp", stock=100)
    body = rest.order_body(product["id"])
    body["customer"]["email"] = "grace@example.com"
    orders = [(await rest.http.post("/api/v1/orders", json=body)).json() for _ in range(27)]
    (await rest.http.post(f"/api/v1/orders/{orders[0]['id']}:cancel", json={})).raise_for_status()
    await staff.open_orders()
    field, rows = staff.page.get_by_role("searchbox", name="Search"), staff.page.locator("#order-rows tr")
    async with staff.page.expect_response("**/api/v1/orders?*customerEmail=*"):
        await field.fill("GRACE@example.com")
    await expect(rows).to_have_count(25)
    await expect(rows.first).to_contain_text(orders[-1]["number"])
    await staff.page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(27)
    await staff.page.wait_for_timeout(5_000)
    await expect(rows).to_have_count(27)
    await staff.page.get_by_label("Status").select_option("Cancelled")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(orders[0]["number"])
    await staff.page.get_by_label("Status").select_option("All")
    await field.fill(orders[3]["number"])
    await expect(rows).to_have_count(1)
    await field.fill("nobody@example.com")
    await expect(staff.page.locator("#no-orders")).to_be_visible()


async def overflow(page: Page) -> int:
    return int(await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


async def test_narrow_screen_needs_no_sideways_scrolling(staff: StaffPage, rest: Rest) -> None:
    await staff.page.set_viewport_size({"width": 360, "height": 740})
    product = await rest.product(name="Extraordinarily" + "long" * 20)
    order = await rest.order(product["id"])
    row = await staff.find(product["name"])
    assert await overflow(staff.page) == 0
    await row.get_by_role("button", name="Edit").click()
    assert await staff.dialog.evaluate("each => each.scrollWidth - each.clientWidth") == 0
    await staff.page.keyboard.press("Escape")
    await staff.open_orders()
    assert await overflow(staff.page) == 0
    await staff.order(order["number"]).get_by_role("button", name=order["number"], exact=True).click()
    assert await staff.dialog.evaluate("each => each.scrollWidth - each.clientWidth") == 0
