"""The page for staff as people use it: a test says what they do and what they see."""

from dataclasses import dataclass

from playwright.async_api import Locator, Page


@dataclass(frozen=True)
class StaffPage:
    """The open page for staff."""

    page: Page

    def product(self, name: str) -> Locator:
        """The row of the product with exactly this name."""
        return self.page.locator("#product-rows tr", has=self.page.get_by_text(name, exact=True))

    async def find(self, name: str) -> Locator:
        """Searches for a product. Returns its row."""
        await self.page.get_by_role("searchbox", name="Search").fill(name)
        row = self.product(name)
        await row.wait_for()
        return row

    async def open_orders(self) -> None:
        """Shows the orders."""
        await self.page.get_by_role("link", name="Orders", exact=True).click()
        await self.page.locator("#orders-live").get_by_text("Updated at").wait_for()

    def order(self, number: str) -> Locator:
        """The row of an order."""
        return self.page.locator("#order-rows tr", has_text=number)

    @property
    def dialog(self) -> Locator:
        """The open dialog."""
        return self.page.locator("dialog[open]").last

    @property
    def notices(self) -> Locator:
        """The notices that are shown."""
        return self.page.locator(".notice")

    async def sign_in(self, token: str) -> None:
        """Signs in with a token."""
        await self.page.locator("#access").get_by_role("button", name="Sign in").click()
        await self.dialog.get_by_label("Token").fill(token)
        await self.dialog.get_by_role("button", name="Sign in with this token").click()

    async def wait_for_focus(self, name: str) -> None:
        """Waits until what has this name has the focus: a dialog returns it a moment after it is gone."""
        found = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
        await self.page.wait_for_function(f"name => ({found}) === name", arg=name)
