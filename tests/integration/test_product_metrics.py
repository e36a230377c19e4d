"""What the product service measures of its stock, as Prometheus reads it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import cast
from uuid import uuid4

import psycopg
import pytest

from bench.plans import Planned, Plans, describe
from local.settings import free_ports
from product.overdue_holds import MAX_COUNTED
from product.stock_store import OverdueHolds, StockStore
from runtime.database import Database
from runtime.errors import unavailable
from tests.support.eventually import eventually
from tests.support.metrics import scrape
from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refused, reserve_request
from tests.support.stock_batches import release, reserve

RESERVATIONS = "shop_stock_reservations_total"
OUTS = "shop_stock_outs_total"


@pytest.fixture
def metrics_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
async def shop(product_database: str, metrics_port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProductShop]:
    monkeypatch.setattr("product.app.OVERDUE_POLL_INTERVAL", 0.1)
    async with product_shop(product_database, METRICS_PORT=str(metrics_port)) as shop:
        yield shop


async def counted(port: int) -> dict[str, float]:
    seen = await scrape(port)
    results = {result: seen.value(RESERVATIONS, result=result) for result in ("held", "confirmed", "released")}
    more = {result: seen.value(RESERVATIONS, result=result) for result in ("voided", "refused")}
    return {name: value for name, value in (results | more | {"outs": seen.value(OUTS)}).items() if value}


async def test_counters_start_at_zero(shop: ProductShop, metrics_port: int) -> None:
    seen = await scrape(metrics_port)
    assert seen.values(RESERVATIONS) == [0] * 5
    assert seen.values(OUTS) == [0]


async def test_reservations_are_counted_by_result(shop: ProductShop, metrics_port: int) -> None:
    product = await shop.create(stock=10)
    first, second = str(uuid4()), str(uuid4())
    await shop.reserve({product.id: 3}, first)
    await shop.reserve({product.id: 3}, second)
    assert await counted(metrics_port) == {"held": 2}
    await shop.confirm(first)
    await shop.release(second)
    await shop.release(str(uuid4()))
    assert await counted(metrics_port) == {"held": 2, "confirmed": 1, "released": 1, "voided": 1}


async def test_repeated_requests_are_counted_once(shop: ProductShop, metrics_port: int) -> None:
    product = await shop.create(stock=10)
    first = str(uuid4())
    for _ in range(3):
        await shop.reserve({product.id: 10}, first)
    for _ in range(3):
        await shop.confirm(first)
    assert await counted(metrics_port) == {"held": 1, "confirmed": 1}


async def test_batches_are_counted_by_item(shop: ProductShop, metrics_port: int) -> None:
    product = await shop.create(stock=5)
    requests = [reserve_request({product.id: 2}) for _ in range(4)]
    await reserve(shop, *requests)
    assert await counted(metrics_port) == {"held": 2, "refused": 2, "outs": 2}
    await release(shop, *(each.reservation_id for each in requests))
    assert await counted(metrics_port) == {"held": 2, "refused": 2, "outs": 2, "released": 2, "voided": 2}


async def test_only_missing_stock_is_a_stock_out(shop: ProductShop, metrics_port: int) -> None:
    product = await shop.create(stock=5)
    with refused() as refusal:
        await shop.reserve({UNKNOWN: 1})
    assert refusal.reason == "PRODUCT_NOT_FOUND"
    with refused() as refusal:
        await shop.reserve({product.id: 1}, expected=euros(1))
    assert refusal.reason == "PRICE_CHANGED"
    assert await counted(metrics_port) == {"refused": 2}
    with refused() as refusal:
        await shop.reserve({product.id: 6})
    assert refusal.reason == "INSUFFICIENT_STOCK"
    assert await counted(metrics_port) == {"refused": 3, "outs": 1}


async def test_overdue_holds_are_seen_until_settled(shop: ProductShop, metrics_port: int) -> None:
    product = await shop.create(stock=10)
    ids = [str(uuid4()) for _ in range(3)]
    for each in ids:
        await shop.reserve({product.id: 1}, each)

    async def overdue() -> tuple[float, float]:
        seen = await scrape(metrics_port)
        [holds], [age] = seen.values("shop_reservations_overdue"), seen.values("shop_reservations_overdue_age_seconds")
        return holds, age

    async def none_is_overdue() -> bool:
        return await overdue() == (0, 0)

    await eventually(none_is_overdue)
    async with shop.connection() as connection:
        query = "UPDATE reservation SET expire_time = now() - make_interval(secs => %s) WHERE id = %s"
        for seconds, each in ((100, ids[0]), (400, ids[1])):
            await connection.execute(query, (seconds, each))

    async def both_are_overdue() -> bool:
        holds, age = await overdue()
        return holds == 2 and 400 <= age < 430

    await eventually(both_are_overdue)
    for each in ids:
        await shop.release(each)
    await eventually(none_is_overdue)


async def test_overdue_holds_are_unknown_without_a_database(
    product_database: str, metrics_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old number would say that nothing is wrong."""
    monkeypatch.setattr("product.app.OVERDUE_POLL_INTERVAL", 0.1)
    monkeypatch.setattr("product.overdue_holds.MAX_READING_AGE", 1)

    async def values() -> list[float]:
        seen = await scrape(metrics_port)
        return seen.values("shop_reservations_overdue") + seen.values("shop_reservations_overdue_age_seconds")

    async with product_shop(product_database, METRICS_PORT=str(metrics_port)):

        async def are_known() -> bool:
            return await values() == [0, 0]

        async def are_unknown() -> bool:
            return await values() == []

        await eventually(are_known)
        await asyncio.sleep(1.2)
        assert await are_known()
        monkeypatch.setattr(StockStore, "count_overdue", _unavailable)
        await eventually(are_unknown)


async def test_nothing_is_read_for_metrics_that_nobody_sees(
    product_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0

    async def count_overdue(*_: object) -> OverdueHolds:
        nonlocal reads
        reads += 1
        return OverdueHolds(0, 0)

    monkeypatch.setattr(StockStore, "count_overdue", count_overdue)
    async with product_shop(product_database):
        await asyncio.sleep(0.5)
    assert not reads


async def _unavailable(*_: object) -> OverdueHolds:
    raise unavailable("the database is unavailable")


async def test_overdue_holds_are_found_by_an_index(product_database: str) -> None:
    """A shop has millions of settled reservations. The reader must not read them every few seconds."""
    query = """
        INSERT INTO reservation (id, state, items, expire_time)
        SELECT gen_random_uuid(), CASE WHEN n <= %s THEN 'HELD' ELSE 'CONFIRMED' END, '[]', now() - interval '1 day'
        FROM generate_series(1, %s) AS n
        """
    async with await psycopg.AsyncConnection.connect(product_database, autocommit=True) as connection:
        await connection.execute(query, (5 * MAX_COUNTED, 30 * MAX_COUNTED))
        await connection.execute("ANALYZE reservation")
    with closing(Plans(product_database)) as plans, pytest.raises(Planned) as planned:
        await StockStore(cast("Database", plans)).count_overdue(MAX_COUNTED)
    cost = planned.value.cost
    assert "reservation_expired_idx" in str(cost.plan)
    assert cost.buffers < 1.1 * MAX_COUNTED, describe(cost.plan)
