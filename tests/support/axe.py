"""axe-core, which finds what keeps people from using a page."""

from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

RULES = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}
"""The rules of axe that a page must keep."""

STILL = """
() => Promise.allSettled(document.getAnimations().filter(each => each.effect.getComputedTiming().iterations === 1)
  .map(each => each.finished)).then(() => true)
"""
"""Waits until what moves once has moved, or is gone: its colours in between are not those that people read."""


async def violations(page: Page) -> list[str]:
    """What axe finds on a page: the rule, and the elements that break it."""
    await page.evaluate(STILL)
    found: dict[str, Any] = (await Axe().run(page, options=RULES)).response
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found["violations"]]
