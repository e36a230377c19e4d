"""What `helm test` runs, against the real shop without a cluster."""

import os
import subprocess
import sys

import httpx
import pytest

from tests.chart import tools
from tests.support.rest import Rest
from tests.support.shop import RunningShop


def check(program: str, shop: RunningShop, **variables: str) -> str:
    """Returns what a check prints, which must pass."""
    command = [sys.executable, str(tools.CHART / f"files/tests/check_{program}.py")]
    environment = {**os.environ, "EDGE": shop.url, **variables}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("rest", "products: created, read, updated, found"),
        ("grpc", "cart: created, read with its secret, deleted"),
        ("order", "placed once, out of a cart"),
    ],
)
async def test_check_passes_without_tokens(shop: RunningShop, rest: Rest, program: str, printed: str) -> None:
    assert printed in check(program, shop)
    left = (await rest.http.get("/api/v1/products", params={"search": "helm test"})).json()
    assert left["products"] == [], "the check deletes what it has created"


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("rest", "without a token: the catalogue can be read"),
        ("grpc", "calls: succeeded, but for a list of orders without a token"),
        ("guest", "placed by a guest out of a cart, read and followed with tickets"),
    ],
)
async def test_check_passes_with_tokens(shop_with_tokens: RunningShop, program: str, printed: str) -> None:
    headers = shop_with_tokens.authorization(staff=True)
    async with httpx.AsyncClient(base_url=shop_with_tokens.url, headers=headers) as http:
        await Rest(http).product()
    variables = {"AUTH_MODE": "jwt", "AUTH_GUESTS": "true", "PLACE_ORDER": "true"}
    assert printed in check(program, shop_with_tokens, **variables)
