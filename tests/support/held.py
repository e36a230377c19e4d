"""Responses to a page that arrive late."""

import asyncio

from playwright.async_api import Page, Route


class Held:
    """The next response to a path, which waits until it is released."""

    def __init__(self, page: Page, path: str) -> None:
        self._page = page
        self._path = path
        self._arrived = asyncio.Event()
        self._released = asyncio.Event()

    async def start(self) -> None:
        """Holds the next response."""
        await self._page.route(self._path, self._hold, times=1)

    async def _hold(self, route: Route) -> None:
        response = await route.fetch()
        self._arrived.set()
        await self._released.wait()
        await route.fulfill(response=response)

    async def wait(self) -> None:
        """Waits until the shop has responded."""
        await asyncio.wait_for(self._arrived.wait(), 15)

    async def release(self) -> None:
        """Gives the response to the page, which then has had time to show it."""
        async with self._page.expect_response(self._path):
            self._released.set()
        await self._page.wait_for_timeout(300)


async def hold(page: Page, path: str) -> Held:
    """Holds the next response to a path."""
    held = Held(page, path)
    await held.start()
    return held
