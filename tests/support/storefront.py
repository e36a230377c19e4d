"""The shop's page as people use it: a test says what they do and what they see."""

from dataclasses import dataclass
from typing import Any

from playwright.async_api import Locator, Page, expect

from tests.support.axe import violations


@dataclass(frozen=True)
class Storefront:
    """An open page of the shop."""

    page: Page

    def card(self, name: str) -> Locator:
        """The product with exactly this name, among those that are shown."""
        return self.page.locator(".product", has=self.page.get_by_text(name, exact=True))

    async def search(self, name: str) -> Locator:
        """Searches for a product, which others may match too. Returns its card."""
        await self.page.fill("#search", name)
        await expect(self.page.locator("#catalogue-title")).to_have_text(f"Results for “{name}”")
        card = self.card(name)
        await expect(card).to_have_count(1)
        return card

    async def add(self, name: str) -> Locator:
        """Finds a product and puts a piece of it into the cart. Returns its card."""
        card = await self.search(name)
        had = await card.locator(".in-cart").text_content()
        await card.get_by_role("button", name="Add to cart").click()
        quantity = int((had or "0").split()[0]) + 1
        await expect(card.locator(".in-cart")).to_have_text(f"{quantity} in cart")
        return card

    async def open_cart(self) -> Locator:
        """Opens the cart. Returns its panel."""
        await self.page.click("#open-cart")
        panel = self.page.locator("#cart")
        await panel.wait_for()
        return panel

    def line(self, name: str) -> Locator:
        """A product in the cart's panel."""
        return self.page.locator("#cart .line", has_text=name)

    async def begin_checkout(self) -> None:
        """Opens the cart and goes to the checkout from there."""
        panel = await self.open_cart()
        await panel.get_by_role("link", name="Check out").click()
        await expect(self.place_button).to_be_enabled()

    async def fill_in(self, name: str = "Ada Lovelace") -> None:
        """Fills in the checkout's form."""
        await self.field("Name").fill(name)
        await self.field("E-mail").fill("ada@example.com")
        await self.field("Address").fill("12 St James's Square\nLondon")

    def field(self, label: str) -> Locator:
        """A field of the checkout's form."""
        return self.page.locator("#checkout").get_by_label(label, exact=True)

    @property
    def place_button(self) -> Locator:
        """The button that places the order."""
        return self.page.locator('#checkout button[type="submit"]')

    @property
    def message(self) -> Locator:
        """What the checkout says."""
        return self.page.locator("#checkout [role=alert]")

    async def place(self) -> str:
        """Places the order. Returns its id."""
        await self.place_button.click()
        return await self.confirmed()

    async def confirmed(self) -> str:
        """Waits for the confirmation. Returns the id of the order."""
        await self.page.get_by_role("heading", name="Thank you for your order").wait_for()
        return self.page.url.rpartition("/")[2]

    async def buy(self, name: str) -> str:
        """Buys a piece of a product by the cart. Returns the id of the order."""
        await self.add(name)
        await self.begin_checkout()
        await self.fill_in()
        return await self.place()

    async def wait_for_status(self, status: str) -> None:
        """Waits until the order's way shows this status as the present one."""
        await self.page.locator(f'.steps li[data-status="{status}"][aria-current="step"]').wait_for()

    @property
    def reached(self) -> Locator:
        """The steps that the order has reached."""
        return self.page.locator(".steps li.done strong")

    @property
    def live(self) -> Locator:
        """What is said of the connection."""
        return self.page.locator(".live")

    @property
    def notices(self) -> Locator:
        """The notices that are shown."""
        return self.page.locator(".notice")

    async def sign_in(self, token: str) -> None:
        """Signs in with a token."""
        await self.page.get_by_role("button", name="Sign in").first.click()
        dialog = self.page.get_by_role("dialog", name="Sign in")
        await dialog.get_by_label("Token").fill(token)
        await dialog.get_by_role("button", name="Sign in with this token").click()
        await dialog.wait_for(state="detached")

    async def kept(self, key: str) -> Any:
        """What the browser keeps for all tabs of the page; None if there is nothing."""
        read = 'async key => (await import("/pages/storage.js")).shared.read(key)'
        return await self.page.evaluate(read, key)

    async def kept_cart(self) -> dict[str, str]:
        """The id and the secret of the guest's cart, which the browser keeps."""
        cart: dict[str, str] = await self.kept("shop.cart")
        return cart

    async def violations(self) -> list[str]:
        """What axe finds on the page."""
        return await violations(self.page)
