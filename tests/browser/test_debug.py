"""The page with the live numbers of a shop that runs with TELEMETRY=1."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import httpx
import pytest
from playwright.async_api import Locator, Page, expect

from tests.support.axe import violations
from tests.support.browser import needs_chromium, visit
from tests.support.rest import Rest
from tests.support.shop import RunningShop

Scheme = Literal["light", "dark"]


@pytest.fixture
async def measured(measured_shop: RunningShop) -> AsyncIterator[Rest]:
    async with httpx.AsyncClient(base_url=measured_shop.url, timeout=30) as http:
        rest = Rest(http)
        yield rest
        await rest.delete_products()


@pytest.fixture
async def page(measured_shop: RunningShop) -> AsyncIterator[Page]:
    async with visit(f"{measured_shop.url}/debug") as opened:
        await opened.page.get_by_role("heading", name="Processes").wait_for()
        yield opened.page


def row(page: Page, detail: str, name: str) -> Locator:
    """The cells of a row of a table, without its name."""
    rows = page.locator("tr", has=page.locator(".second", has_text=detail))
    return rows.filter(has=page.get_by_text(name, exact=True)).locator("td.number")


def tile(page: Page, name: str) -> Locator:
    """A number."""
    return page.locator(".tile", has=page.get_by_text(name, exact=True)).locator(".value")


@needs_chromium
async def test_an_order_arrives_in_the_numbers(page: Page, measured: Rest) -> None:
    placed = row(page, "order", "PLACED").nth(1)
    await expect(placed).not_to_have_text("")
    before = int((await placed.text_content() or "").replace(",", ""))
    product = await measured.product(stock=3)
    await measured.order(product["id"])
    await expect(placed).to_have_text(str(before + 1))
    await expect(row(page, "reservation", "held").nth(1)).not_to_have_text("0")
    await expect(row(page, "shop.order.v1.OrderService", "CreateOrder").nth(0)).not_to_have_text("0")
    answer = await measured.http.post("/api/v1/orders", json=measured.order_body(product["id"], 50))
    assert answer.json()["details"][0]["reason"] == "INSUFFICIENT_STOCK"
    stock_outs = page.locator("tr", has=page.get_by_text("stock-out", exact=True)).locator("td.number").nth(1)
    await expect(stock_outs).not_to_have_text("0")


@needs_chromium
async def test_a_watcher_arrives_in_the_numbers(page: Page, measured: Rest) -> None:
    streams = tile(page, "event streams")
    await expect(streams).to_have_text("0")
    product = await measured.product(stock=3)
    order = await measured.order(product["id"])
    async with measured.http.stream("GET", "/api/orders/stream", params={"order_id": order["id"]}):
        await expect(streams).to_have_text("1")
    await expect(streams).to_have_text("0")


@needs_chromium
async def test_numbers_stop_while_paused(page: Page, measured: Rest) -> None:
    await page.get_by_role("button", name="Pause").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await asyncio.sleep(2.5)
    assert asked == []
    await page.get_by_role("button", name="Continue").click()
    async with page.expect_request("**/debug/numbers.json"):
        pass


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_no_violation_in_the_numbers(page: Page, measured: Rest, scheme: Scheme, width: int) -> None:
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": width, "height": 800})
    product = await measured.product(stock=3)
    await measured.order(product["id"])
    await row(page, "shop.order.v1.OrderService", "CreateOrder").first.wait_for()
    assert await violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_numbers_are_only_read(measured_shop: RunningShop, measured: Rest) -> None:
    assert (await measured.http.get("/debug")).status_code == 200
    for path in ("/debug", "/debug/numbers.json"):
        assert (await measured.http.post(path)).status_code == 404
    for path in ("/debug/%2e%2e/history.py", "/debug/nothing", "/debugger", "/debug/page/debug.js"):
        assert (await measured.http.get(path)).status_code in (400, 404), path


async def test_other_host_names_get_no_numbers(measured_shop: RunningShop) -> None:
    """A page of another site can point a name of its own at this machine."""
    ports = measured_shop.shop
    urls = [measured_shop.url, f"http://127.0.0.1:{ports.debug_port}"]
    async with httpx.AsyncClient() as http:
        for url in urls:
            for host, status in (("localhost:1", 200), ("shop.localhost", 200), ("evil.example", 421)):
                answer = await http.get(f"{url}/debug/numbers.json", headers={"host": host})
                assert answer.status_code == status, (url, host)


async def test_page_is_there_with_telemetry_only(shop: RunningShop) -> None:
    async with httpx.AsyncClient(base_url=shop.url) as http:
        for path in ("/debug", "/debug/", "/debug/numbers.json", "/debug/debug.js"):
            assert (await http.get(path)).status_code == 404, path
