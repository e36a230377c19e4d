"""The catalogue of the page: search, categories, pages, prices, stock, pictures."""

from collections.abc import Iterator

import pytest
from playwright.async_api import Route, expect

from tests.support.browser import Visit, needs_chromium, visit
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.storefront import Storefront

pytestmark = needs_chromium


@pytest.fixture(autouse=True)
def nothing_fails(opened: Visit) -> Iterator[None]:
    """A browser logs what it could not load; these tests load nothing that fails."""
    yield
    assert opened.problems == []


async def test_page_with_long_names_fits_a_phone(store: Storefront, rest: Rest) -> None:
    name = "Phone" + "x" * 195
    await rest.product(
        name=name, category="y" * 100, variant="z" * 100, price={"currencyCode": "EUR", "units": "123456", "nanos": 0}
    )
    page = store.page
    await page.set_viewport_size({"width": 360, "height": 640})
    card = await store.search(name)
    box = await card.get_by_role("button", name="Add to cart").bounding_box()
    assert box
    assert box["x"] + box["width"] <= 360
    await store.buy(name)
    await store.wait_for_status("PLACED")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_stock_is_told_until_a_product_is_sold_out(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Last lamp", stock=1)
    card = await store.search("Last lamp")
    await expect(card.locator(".stock")).to_have_text("1 left")
    await store.buy("Last lamp")
    await store.page.get_by_role("link", name="Shop").click()
    card = await store.search("Last lamp")
    await expect(card.get_by_role("button", name="Sold out")).to_be_disabled()


async def test_search_without_results_shows_a_message(store: Storefront, rest: Rest) -> None:
    nothing = store.page.locator("#none")
    await rest.product(name="Only lamp")
    await store.search("Only lamp")
    assert not await nothing.is_visible()
    await store.page.fill("#search", "no such thing anywhere")
    await nothing.wait_for()
    await expect(store.page.locator("#found")).to_have_text("Nothing found.")
    await store.page.fill("#search", "")
    await nothing.wait_for(state="hidden")


async def test_latest_search_wins(store: Storefront, rest: Rest) -> None:
    """The first response comes last."""
    await rest.product(name="Early kettle")
    await rest.product(name="Later kettle")

    async def delay(route: Route) -> None:
        await store.page.wait_for_timeout(1000)
        await route.continue_()

    await store.page.route("**/api/v1/products?*search=Early*", delay)
    await store.page.fill("#search", "Early kettle")
    async with store.page.expect_request("**/api/v1/products?*search=Early*"):
        pass
    await store.search("Later kettle")
    await store.page.wait_for_timeout(1200)
    await expect(store.page.locator(".product h2")).to_have_text(["Later kettle"])


async def test_prices_have_decimals_of_their_currency(store: Storefront, rest: Rest) -> None:
    """None for the yen, two for the euro, three for the dinar of Kuwait."""
    for currency, units, nanos in (("JPY", "500", 0), ("EUR", "500", 0), ("KWD", "1", 125_000_000)):
        price = {"currencyCode": currency, "units": units, "nanos": nanos}
        await rest.product(name=f"Priced in {currency}", price=price)
    for currency, shown in (("JPY", "¥500"), ("EUR", "€500.00"), ("KWD", "KWD\N{NO-BREAK SPACE}1.125")):
        card = await store.search(f"Priced in {currency}")
        assert await card.locator(".price").inner_text() == shown


async def test_price_that_no_float_has_is_exact(store: Storefront, rest: Rest) -> None:
    """Three times 0.1 is 0.3, and large amounts keep their cents."""
    await rest.product(name="Cheap bead", price={"currencyCode": "KWD", "units": "0", "nanos": 100_000_000})
    await rest.product(name="Dear yacht", price={"currencyCode": "EUR", "units": "999999999", "nanos": 990_000_000})
    sums = await store.page.evaluate(
        """async () => {
          const { add, decimal, multiply, parse } = await import("/pages/money.js");
          const tenth = parse("0.1", "KWD");
          return [
            decimal(multiply(tenth, 3)),
            decimal(add(add(tenth, tenth), tenth)),
            decimal(multiply(parse("999999999.99", "EUR"), 100000000)),
            decimal(parse("-12.50", "EUR")),
          ];
        }"""
    )
    assert sums == ["0.3", "0.3", "99999999999000000", "-12.5"]
    card = await store.search("Dear yacht")
    assert await card.locator(".price").inner_text() == "€999,999,999.99"


async def test_category_narrows_the_list_and_sorting_orders_it(store: Storefront, rest: Rest) -> None:
    category = "Sorted things"
    for name, units in (("Middle", "5"), ("Dearest", "9"), ("Cheapest", "1")):
        price = {"currencyCode": "EUR", "units": units, "nanos": 0}
        await rest.product(name=name, category=category, price=price)
    await store.page.reload()
    await store.page.get_by_role("radio", name=category).check()
    names = store.page.locator(".product h2")
    await expect(names).to_have_text(["Cheapest", "Dearest", "Middle"])
    await expect(store.page.get_by_role("heading", level=1)).to_have_text(category)
    await store.page.get_by_label("Sort", exact=True).select_option("price")
    await expect(names).to_have_text(["Cheapest", "Middle", "Dearest"])


async def test_more_products_are_shown_page_by_page(store: Storefront, rest: Rest) -> None:
    for number in range(26):
        await rest.product(name=f"Paged thing {number}", category="Paged things")
    await store.page.fill("#search", "Paged thing")
    await expect(store.page.locator("#catalogue-title")).to_have_text("Results for “Paged thing”")
    cards = store.page.locator(".product")
    await expect(cards).to_have_count(24)
    await store.page.get_by_role("button", name="Show more").click()
    await expect(cards).to_have_count(26)
    await expect(store.page.get_by_role("button", name="Show more")).to_be_hidden()
    await expect(cards.nth(24).get_by_role("button").first).to_be_focused()


async def test_next_page_is_that_of_the_list_and_not_of_what_is_typed(store: Storefront, rest: Rest) -> None:
    for number in range(26):
        await rest.product(name=f"Listed thing {number}", category="Listed things")
    await store.page.reload()
    await expect(store.page.get_by_role("button", name="Show more")).to_be_enabled()
    await store.page.evaluate(
        """() => {
            const search = document.getElementById("search");
            search.value = "Listed thing 24";
            search.dispatchEvent(new Event("input"));
            document.getElementById("more").click();
        }"""
    )
    await expect(store.page.locator("#catalogue-title")).to_have_text("Results for “Listed thing 24”")
    await expect(store.page.locator(".product")).to_have_count(1)


@pytest.mark.parametrize("uri", ["", "http://pictures.example/lamp.png"])
async def test_product_without_a_usable_picture_has_a_drawing(store: Storefront, rest: Rest, uri: str) -> None:
    """Without a picture, and with one that the page's policy does not load."""
    name = f"Drawn lamp {len(uri)}"
    await rest.product(name=name, imageUri=uri)
    card = await store.search(name)
    assert await card.locator(".art svg").count() == 1
    assert await card.locator(".art img").count() == 0


async def test_picture_of_a_product_is_shown(store: Storefront, rest: Rest) -> None:
    await rest.product(name="Pictured lamp", imageUri="/pictures/lamp.svg")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"/>'

    async def answer(route: Route) -> None:
        await route.fulfill(body=svg, content_type="image/svg+xml")

    await store.page.route("**/pictures/lamp.svg", answer)
    card = await store.search("Pictured lamp")
    await expect(card.locator(".art svg")).to_have_count(0)
    assert await card.locator(".art img").get_attribute("alt") == ""


async def test_page_asks_nobody_else(store: Storefront, opened: Visit) -> None:
    await store.page.locator(".product, #none").first.wait_for()
    origin = store.page.url.rstrip("/")
    assert [each.url for each in opened.requests if not each.url.startswith((origin, "data:"))] == []


async def test_catalogue_that_does_not_load_can_be_tried_again(shop: RunningShop, rest: Rest) -> None:
    await rest.product(name="Patient lamp")
    async with visit(shop.url) as opened:
        store = Storefront(opened.page)
        await store.page.route("**/api/v1/products?*", lambda route: route.abort())
        await store.page.fill("#search", "Patient lamp")
        await store.notices.filter(has_text="The shop cannot be reached.").wait_for()
        assert await store.page.locator(".product").count() == 0
        await store.page.unroute("**/api/v1/products?*")
        await store.page.get_by_role("button", name="Try again").click()
        await store.card("Patient lamp").wait_for()
