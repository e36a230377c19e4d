"""One client that asks, makes carts and guesses secrets, without a good token: it is limited, and others are served."""

import asyncio

import httpx
import psycopg
import pytest

from tests.abuse.attack import FLOODS_OF_REQUESTS, NEW_CARTS, UNKNOWN_KEYS, WRONG_SECRETS
from tests.abuse.conftest import Row
from tests.abuse.honest import Honest
from tests.abuse.measure import SECONDS, check_attack
from tests.abuse.shop import TokenShop
from tests.support.eventually import eventually
from tests.support.oidc import JWKS
from tests.support.rest import Rest

MAX_ERRORS = 0.02
"""The share of the honest client's calls that may fail."""

FETCHES = 3 * (SECONDS / 2 + 3)
"""How often three processes may fetch the issuer's keys: every two seconds at the most."""

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("attack", FLOODS_OF_REQUESTS)
async def test_flood_of_requests_is_limited(token_shop: TokenShop, rows: list[Row], attack: str) -> None:
    shop, provider = token_shop, token_shop.provider
    await shop.fresh()
    product_id = await _stocked(shop)
    provider.fetches.clear()
    passed = await _served(shop)
    honest = Honest(shop.target, product_id, token=provider.token("ada"))
    target = await _cart(shop) if attack == WRONG_SECRETS else provider.url
    before = _carts(shop)
    await check_attack(shop, attack, target, honest, rows, MAX_ERRORS)
    burst, rate = shop.edge_settings(0).rate_burst, shop.edge_settings(0).rate_limit
    # The honest client makes three requests in a call at the most.
    assert await _served(shop) - passed < burst + rate * (SECONDS + 3) + 3 * len(honest.seconds)
    after = _carts(shop)
    assert before.items() <= after.items(), "no cart of others has changed"
    # The honest client is a customer, who has one cart of its own. A busy machine makes few carts.
    assert bool(after.keys() - before.keys()) is (attack == NEW_CARTS)
    assert provider.fetches[JWKS] <= (FETCHES if attack == UNKNOWN_KEYS else 3)


async def _cart(shop: TokenShop) -> str:
    """Returns the id of a guest's new cart."""
    async with httpx.AsyncClient(base_url=f"http://{shop.target}", timeout=30) as http:
        made = (await http.post("/api/v1/carts", json={})).raise_for_status().json()
        return str(made["cart"]["id"])


def _carts(shop: TokenShop) -> dict[str, str]:
    """Returns the etag of each guest's cart."""
    with psycopg.connect(shop.postgres.service("order")) as connection:
        return dict(connection.execute("SELECT id::text, etag::text FROM cart WHERE owner = ''").fetchall())


async def _served(shop: TokenShop) -> int:
    """Returns how many requests the edge has sent to a service. It repeats reads that got UNAVAILABLE."""

    async def count(statistic: str) -> int:
        names = (f"cluster.{each}.{statistic}" for each in ("product", "order"))
        return sum(await asyncio.gather(*map(shop.edge_stat, names)))

    return await count("upstream_rq_total") - await count("upstream_rq_retry")


async def _stocked(shop: TokenShop) -> str:
    """Returns the id of a product that is in stock, once the whole shop is ready."""
    await shop.ready()
    headers = {"authorization": f"Bearer {shop.provider.token('grace', staff=True)}"}
    async with httpx.AsyncClient(base_url=f"http://{shop.target}", headers=headers, timeout=30) as http:

        async def is_ready() -> bool:
            paths = ("/api/v1/products?pageSize=1", "/api/v1/orders?pageSize=1")
            return [(await http.get(path)).status_code for path in paths] == [200, 200]

        await eventually(is_ready, 30)
        return str((await Rest(http).product(stock=1_000_000))["id"])
