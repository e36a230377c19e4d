"""A real browser that opens a page of the shop."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Page, Request, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")


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
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = await browser.new_page()
        opened = Visit(page)
        page.on("request", lambda request: opened.requests.append(request))
        page.on("pageerror", lambda error: opened.problems.append(str(error)))
        page.on("console", lambda message: opened.console.append(f"{message.text} {message.location}"))
        page.on("console", lambda message: opened.problems.append(message.text) if message.type == "error" else None)
        await page.goto(url)
        yield opened
        await browser.close()
