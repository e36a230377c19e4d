"""Fixtures of the tests in a browser."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import expect

from demo.load import CATALOGUE
from tests.support.browser import Visit, visit
from tests.support.rest import Rest
from tests.support.shop import RunningShop
from tests.support.storefront import Storefront

expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def shop(shop: RunningShop) -> RunningShop:
    """A shop that has products of others: a test finds its own among them."""
    return add_demo_products(shop)


@pytest.fixture(scope="session")
def shop_with_tokens(shop_with_tokens: RunningShop) -> RunningShop:
    """The same, with AUTH_MODE=jwt and tokens for trying."""
    return add_demo_products(shop_with_tokens)


def add_demo_products(shop: RunningShop) -> RunningShop:
    """Creates the demo's products, without the SKUs by which the demo would find its own."""
    with httpx.Client(base_url=shop.url, headers=shop.authorization(staff=True), timeout=30) as http:
        for product in json.loads(CATALOGUE.read_text()):
            http.post("/api/v1/products", json={**product, "sku": "", "slug": ""}).raise_for_status()
    return shop


@pytest.fixture
async def opened(shop: RunningShop) -> AsyncIterator[Visit]:
    """The page of a shop that verifies no tokens."""
    async with visit(shop.url) as opened:
        yield opened


@pytest.fixture
async def guarded(shop_with_tokens: RunningShop) -> AsyncIterator[Visit]:
    """The page of a shop that verifies tokens."""
    async with visit(shop_with_tokens.url) as opened:
        yield opened


@pytest.fixture
def store(opened: Visit) -> Storefront:
    return Storefront(opened.page)


@pytest.fixture
async def rest(rest: Rest) -> AsyncIterator[Rest]:
    yield rest
    await rest.delete_products()


@pytest.fixture
async def staff(shop_with_tokens: RunningShop) -> AsyncIterator[Rest]:
    """Staff of the shop with tokens."""
    headers = shop_with_tokens.authorization(staff=True)
    async with httpx.AsyncClient(base_url=shop_with_tokens.url, headers=headers, timeout=30) as http:
        rest = Rest(http)
        yield rest
        await rest.delete_products()
