"""Any two operations race for the same carts, at two processes: nothing is lost, free, doubled or oversold."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.races.check import SETTLE_TIMEOUT, Row, check
from tests.races.driver import Driver, Pair, pairs
from tests.races.shop import RaceShop
from tests.support.database import DatabaseServer
from tests.support.oidc import Provider

CASES = {"": 1_000, "full": 20_000}
"""Calls of a pair, at least, by the variable CASES."""

CALLS = CASES[os.environ.get("CASES", "")]

TIMEOUT = 400.0 * CALLS / 1_000
"""Seconds that all races together may take. On two free cores they take a third of that."""

FAULTY = [("add", "add"), ("add", "set"), ("add", "checkout"), ("clear", "checkout"), ("checkout", "checkout")]
"""Pairs in which a cart that is read and then written goes wrong."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(TIMEOUT + 60)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def race_shop(
    tmp_path_factory: pytest.TempPathFactory, databases: dict[str, str], provider: Provider
) -> AsyncIterator[RaceShop]:
    async with RaceShop(tmp_path_factory.mktemp("shop"), databases, provider, careless=False).running() as shop:
        yield shop


@pytest.fixture(scope="module")
def deadline() -> float:
    """When all races must be over."""
    return time.monotonic() + TIMEOUT


async def run(
    shop: RaceShop, pair: Pair, calls: int, seconds: float, settle_timeout: float = SETTLE_TIMEOUT
) -> tuple[Row, list[str]]:
    """Lets a pair race. Fails if it takes longer than that, or if one of the two never got anything done."""
    driver = Driver(shop, pair, calls)
    name = " x ".join(pair)
    try:
        async with asyncio.timeout(seconds):
            await driver.run()
            row, problems = await check(driver, name, shop.connections, settle_timeout)
    except TimeoutError:
        raise AssertionError(f"{name}: {driver.calls:,} of {calls:,} calls were made when the time was over") from None
    assert set(pair) <= driver.acknowledged.keys()
    return row, problems


@pytest.mark.parametrize("pair", pairs(), ids=" x ".join)
async def test_nothing_is_lost_or_sold_twice(race_shop: RaceShop, rows: list[Row], deadline: float, pair: Pair) -> None:
    row, problems = await run(race_shop, pair, CALLS, deadline - time.monotonic())
    rows.append(row)
    assert problems == []
    row.check()


async def test_driver_finds_faults(
    tmp_path_factory: pytest.TempPathFactory, postgres: DatabaseServer, provider: Provider
) -> None:
    """The same races, with carts that are read and then written: pieces are lost, and others are sold twice."""
    with postgres.database("product") as products, postgres.database("order") as orders:
        shop = RaceShop(
            tmp_path_factory.mktemp("careless"), {"product": products, "order": orders}, provider, careless=True
        )
        async with shop.running():
            # Some of its orders never settle.
            found = [await run(shop, pair, 200, TIMEOUT, settle_timeout=2) for pair in FAULTY]
    print(*(row for row, _ in found), sep="\n")
    assert [each for _, problems in found for each in problems if "INTERNAL" in each or "UNKNOWN" in each] == []
    assert sum(row.lost for row, _ in found) > 0
    assert sum(row.doubled for row, _ in found) > 0
