"""What the tailer's looks touch: each event once, whatever else goes on in the database and however long the log is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from order.live import cursor
from order.live.cursor import EventCursor
from tests.support.eventually import eventually
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop
from tests.support.watching import Watching

OLD = 30_000
"""Events that are in the log from before, all of one transaction, as a bulk load leaves them."""

CHANGED = 60
"""Orders that are taken from PLACED to RECEIVED."""


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with await psycopg.AsyncConnection.connect(order_database) as connection:
        await connection.execute(
            "WITH placed AS (INSERT INTO orders (id, number, status)"
            " SELECT gen_random_uuid(), next_order_number(), 'PLACED' FROM generate_series(1, %s) RETURNING id)"
            " INSERT INTO order_event (order_id, version, status, create_time)"
            " SELECT id, 1, 'PLACED', now() FROM placed",
            (OLD,),
        )
        await connection.commit()
        await connection.execute("ANALYZE order_event")
        await connection.commit()
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


async def read_by_looks(shop: OrderShop) -> tuple[int, int]:
    """The entries that were read of the index that looks alone use, and the rows that anybody read of the whole log.

    The counters are the server's own, told when a process comes to rest.
    """
    async with shop.connection() as connection:
        counted = await connection.execute(
            "SELECT (SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'order_event_xid'),"
            " (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'order_event')"
        )
        row = await counted.fetchone()
        assert row
        return row[0], row[1]


async def change(shop: OrderShop) -> None:
    orders = [await shop.create() for _ in range(CHANGED)]
    watchers = [Watching(shop, order.id) for order in orders]
    for version, step in enumerate(PATHS["RECEIVED"], start=2):
        for order in orders:
            await shop.move(step, order.id)
        for watching in watchers:
            await watching.until(version)
    for watching in watchers:
        watching.check()


async def test_long_transaction_has_no_row_read_twice(shop: OrderShop) -> None:
    """It has an id, so it is in every snapshot from now on."""
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as long:
        await long.execute("SELECT pg_current_xact_id()")
        await asyncio.sleep(1.5)  # looks at nothing new; what was before is told
        before, scanned = await read_by_looks(shop)
        await change(shop)
        events = 4 * CHANGED

        async def told() -> bool:
            return (await read_by_looks(shop))[0] >= before + events

        await eventually(told, 10)
        await asyncio.sleep(1.5)  # looks that find nothing new
        after, still = await read_by_looks(shop)
    # A look may meet one that is about to be committed, and the next one has it. Looks that read again read all of it.
    assert after - before < 1.5 * events
    assert still == scanned, "nobody reads the log as a whole"


async def test_poll_touches_few_pages_of_long_log(shop: OrderShop) -> None:
    """Also with the plan that suits every snapshot alike, which the server comes to use in the end."""
    async with (
        await psycopg.AsyncConnection.connect(shop.conninfo, autocommit=True) as connection,
        await psycopg.AsyncConnection.connect(shop.conninfo) as long,
    ):
        await long.execute("SELECT pg_current_xact_id()")
        reading = EventCursor(connection)
        await reading.start()
        await change(shop)
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute("SELECT set_config('plan_cache_mode', %s, false)", (mode,))
            plan = await explained(connection, reading.snapshot)
            touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            assert plan["Actual Rows"] == 1 + 4 * CHANGED, "the snapshot and the events"
            assert touched < 200, f"{mode}: {touched} blocks"


async def explained(connection: psycopg.AsyncConnection[Any], snapshot: str) -> dict[str, Any]:
    """How a look was run."""
    await connection.execute("DEALLOCATE ALL")
    query = cursor.READ.replace("%(seen)s", "$1").replace("%(limit)s", "$2")
    await connection.execute(f"PREPARE look (pg_snapshot, bigint) AS {query}".encode())
    look = f"EXECUTE look ('{snapshot}', {cursor.MAX_EVENTS + 1})"
    explain = await connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {look}".encode())
    row = await explain.fetchone()
    assert row
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan
