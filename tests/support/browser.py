"""A real browser that opens a page of the shop."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import Page, Request, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")


ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

STORE_NOTHING = {"profile": {"default_content_setting_values": {"cookies": 2}}}
"""Chromium's preferences of people who let no site store anything."""


@dataclass
class Visit:
    """An open page, and what it did."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Errors of the page's code, and what the browser could not load."""


@asynccontextmanager
async def visit(url: str) -> AsyncIterator[Visit]:
    """Opens a page in a browser of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await (await browser.new_context()).new_page()
        opened = _watch(page)
        await page.goto(url)
        yield opened
        await browser.close()


@asynccontextmanager
async def visit_without_storage(url: str) -> AsyncIterator[Visit]:
    """Opens a page in a browser that stores nothing: cookies, localStorage, IndexedDB and the like are forbidden."""
    with tempfile.TemporaryDirectory(prefix="shop-browser-") as folder:
        preferences = Path(folder) / "Default" / "Preferences"
        preferences.parent.mkdir()
        preferences.write_text(json.dumps(STORE_NOTHING))
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                folder, executable_path=CHROMIUM, args=ARGUMENTS
            )
            opened = _watch(await context.new_page())
            await opened.page.goto(url)
            yield opened
            await context.close()


def _watch(page: Page) -> Visit:
    opened = Visit(page)
    page.on("request", lambda request: opened.requests.append(request))
    page.on("pageerror", lambda error: opened.problems.append(str(error)))
    page.on("console", lambda message: opened.console.append(f"{message.text} {message.location}"))
    page.on("console", lambda message: opened.problems.append(message.text) if message.type == "error" else None)
    return opened
