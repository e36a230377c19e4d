"""Takes the pictures of docs/pictures: `python -m tests.browser.pictures`."""

import asyncio
import sys
import tempfile
from pathlib import Path

import httpx
from playwright.async_api import Page, ViewportSize

from demo.load import load
from local.settings import REPOSITORY
from runtime.client import channel
from tests.support.browser import CHROMIUM, visit
from tests.support.rest import Rest
from tests.support.shop import RunningShop, run_shop
from tests.support.storefront import Storefront

FOLDER = REPOSITORY / "docs" / "pictures"
PHONE: ViewportSize = {"width": 360, "height": 740}
DESKTOP: ViewportSize = {"width": 1280, "height": 860}
MAX_SIZE = 200_000
"""Bytes of a picture, so that a clone stays small."""


async def take(page: Page, name: str) -> None:
    """Takes a picture of what the page shows when nothing moves."""
    await page.emulate_media(reduced_motion="reduce")
    await page.wait_for_timeout(300)
    file = FOLDER / f"{name}.png"
    size = len(await page.screenshot(path=file))
    print(f"{file.relative_to(REPOSITORY)}: {size // 1000} kB")
    if size > MAX_SIZE:
        sys.exit(f"{file.name} is larger than {MAX_SIZE // 1000} kB")


async def shop_pictures(url: str) -> None:
    """The catalogue on a phone and on a desktop, light and dark, a cart, and an order on its way."""
    async with visit(url) as opened:
        page, store = opened.page, Storefront(opened.page)
        await page.set_viewport_size(DESKTOP)
        await page.locator(".product").nth(20).wait_for()
        await take(page, "shop-1280")
        await page.emulate_media(color_scheme="dark")
        await take(page, "shop-1280-dark")
        await page.emulate_media(color_scheme="light")
        for number in range(3):
            await page.locator(".product").nth(number).get_by_role("button", name="Add to cart").click()
            await page.locator(".product").nth(number).locator(".in-cart").wait_for()
        await page.set_viewport_size(PHONE)
        await page.reload()
        await page.locator(".product .in-cart").first.wait_for()
        await take(page, "shop-360")
        await store.open_cart()
        await store.page.get_by_role("button", name="One more").first.click()
        await take(page, "cart-360")
        await page.get_by_role("link", name="Check out").click()
        await store.fill_in()
        order_id = await store.place()
        await page.set_viewport_size(DESKTOP)
        async with httpx.AsyncClient(base_url=url) as http:
            (await http.post(f"/api/v1/orders/{order_id}:process", json={})).raise_for_status()
        await store.wait_for_status("PROCESSED")
        await page.evaluate("scrollTo(0, 0)")
        await take(page, "order-1280")


async def staff_picture(url: str) -> None:
    """The page for staff."""
    async with visit(f"{url}/staff") as opened:
        await opened.page.set_viewport_size(DESKTOP)
        await opened.page.get_by_text("Linen Tea Towels").first.wait_for()
        await take(opened.page, "staff-1280")


async def take_all(shop: RunningShop) -> None:
    """Fills the shop with the demo's catalogue and takes all pictures."""
    FOLDER.mkdir(exist_ok=True)
    async with channel(f"ipv4:{shop.product_target}") as to_product:
        await load(to_product)
    async with httpx.AsyncClient(base_url=shop.url) as http:
        products = (await http.get("/api/v1/products")).json()["products"]
        await Rest(http).order(products[0]["id"])
    await shop_pictures(shop.url)
    await staff_picture(shop.url)


def main() -> None:
    """Takes the pictures of a shop of its own."""
    if not CHROMIUM:
        sys.exit("no chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="shop-pictures-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL does not run as root
        with run_shop(Path(folder) / "state") as shop:
            asyncio.run(take_all(shop))


if __name__ == "__main__":
    main()
