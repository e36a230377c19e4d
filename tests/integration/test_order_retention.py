"""The pruner deletes the event logs of orders that were finished long ago, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from order.domain import Status, is_final
from order.jobs import retention
from order.jobs.retention import Pruner
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.eventually import eventually
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop, status_name


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


@pytest.fixture
async def database(order_database: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(conninfo=order_database, pool_size=4, pool_waiting=10, timeout=5)
    database = Database(config, "retention")
    await database.open()
    yield database
    await database.close()


async def order_in(shop: OrderShop, status: str, days_ago: int) -> str:
    """Makes an order that got its status `days_ago`. Returns its id."""
    order = await shop.create()
    for step in PATHS[status]:
        await shop.move(step, order.id)
    async with shop.connection() as connection:
        for query in (
            "UPDATE order_event SET create_time = create_time - make_interval(days => %s) WHERE order_id = %s",
            "UPDATE orders SET create_time = create_time - make_interval(days => %s) WHERE id = %s",
        ):
            await connection.execute(query.encode(), (days_ago, order.id))
    return order.id


async def logged(shop: OrderShop) -> dict[str, int]:
    """Returns the number of events of each order."""
    async with shop.connection() as connection:
        cursor = await connection.execute("SELECT order_id::text, count(*) FROM order_event GROUP BY 1")
        return dict(await cursor.fetchall())


async def read(stream: Any) -> list[tuple[int, str, str]]:
    return [(event.version, status_name(event), event.message) async for event in stream]


async def test_only_logs_of_old_finished_orders_are_pruned(shop: OrderShop, database: Database) -> None:
    kept = [
        await order_in(shop, "RECEIVED", 89),
        await order_in(shop, "CANCELLED", 0),
        await order_in(shop, "DELIVERED", 400),  # it may still change, and somebody may wait for that
        await order_in(shop, "PLACED", 400),
    ]
    gone = [await order_in(shop, status, 91) for status in ("RECEIVED", "CANCELLED")]
    before = await logged(shop)
    assert not await Pruner(database, 90).step()
    assert await logged(shop) == {order_id: count for order_id, count in before.items() if order_id not in gone}
    assert set(kept) == set(await logged(shop))
    assert (await shop.get(gone[0])).etag == "4", "the order itself is untouched"


async def test_replicas_share_the_batches(shop: OrderShop, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not wait for each other, and leave no old log."""
    monkeypatch.setattr(retention, "PRUNE_BATCH_SIZE", 3)
    for _ in range(11):
        await order_in(shop, "CANCELLED", 100)
    pruners = [Pruner(database, 90) for _ in range(3)]
    assert await pruners[0].step(), "there may be more"
    assert len(await logged(shop)) == 8

    async def work(pruner: Pruner) -> None:
        while await pruner.step():
            pass

    await asyncio.gather(*map(work, pruners))
    while any([await pruner.step() for pruner in pruners]):
        pass
    assert await logged(shop) == {}


@pytest.mark.parametrize("version", [1, 2])
async def test_locked_log_does_not_block_others(shop: OrderShop, database: Database, version: int) -> None:
    """The whole log is skipped without waiting, whichever event is locked."""
    locked, _ = [await order_in(shop, "CANCELLED", days) for days in (200, 100)]
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as connection:
        await connection.execute(
            "SELECT FROM order_event WHERE order_id = %s AND version = %s FOR UPDATE", (locked, version)
        )
        async with asyncio.timeout(2):
            await Pruner(database, 90).step()
        assert await logged(shop) == {locked: 2}
    await Pruner(database, 90).step()
    assert await logged(shop) == {}


async def test_old_logs_are_found_by_an_index(shop: OrderShop) -> None:
    """However many orders are not finished."""
    assert {status.value for status in Status if is_final(status)} == {"RECEIVED", "CANCELLED"}
    async with shop.connection() as connection:
        for path in ("seqscan", "bitmapscan", "sort"):  # few rows would do without an index
            await connection.execute(f"SET enable_{path} = off")
        cursor = await connection.execute(
            "EXPLAIN SELECT order_id FROM order_event WHERE status IN ('RECEIVED', 'CANCELLED')"
            " AND create_time < now() - make_interval(days => 90) ORDER BY create_time LIMIT 200 FOR UPDATE SKIP LOCKED"
        )
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "order_event_final" in plan
    assert "Sort" not in plan


@pytest.mark.parametrize("seen", [0, 1, 2])
async def test_resume_before_pruned_log_gets_the_status(shop: OrderShop, database: Database, seen: int) -> None:
    order_id = await order_in(shop, "RECEIVED", 100)
    await Pruner(database, 90).step()
    expected = (4, "RECEIVED", "order RECEIVED; earlier events are no longer kept")
    assert await read(shop.stream(order_id, seen)) == [expected]


async def test_resume_after_pruned_log_is_complete(shop: OrderShop, database: Database) -> None:
    order_id = await order_in(shop, "RECEIVED", 100)
    await Pruner(database, 90).step()
    assert await read(shop.stream(order_id, 3)) == [(4, "RECEIVED", "order RECEIVED")]
    assert await read(shop.stream(order_id, 4)) == []


async def test_open_stream_survives_pruning(shop: OrderShop, database: Database) -> None:
    order_id = await order_in(shop, "DELIVERED", 0)
    stream = aiter(shop.stream(order_id))
    first = [(await anext(stream)).version for _ in range(3)]
    await shop.move("RECEIVED", order_id)

    await eventually(lambda: shop.followers.topics.version(order_id) != 3)  # 4, or its stream has ended already
    async with shop.connection() as connection:
        await connection.execute("UPDATE order_event SET create_time = create_time - interval '1 year'")
    await Pruner(database, 90).step()
    assert first + [event[0] for event in await read(stream)] == [1, 2, 3, 4]


async def test_running_service_prunes(order_database: str) -> None:
    async with order_shop(order_database, FakeStock()) as shop:
        await order_in(shop, "CANCELLED", 8)
    async with order_shop(order_database, FakeStock(), EVENT_RETENTION_DAYS="7"):
        async with await psycopg.AsyncConnection.connect(order_database, autocommit=True) as connection:
            for _ in range(100):
                row = await (await connection.execute("SELECT count(*) FROM order_event")).fetchone()
                if row == (0,):
                    return
                await asyncio.sleep(0.05)
    raise AssertionError("nothing was pruned")
