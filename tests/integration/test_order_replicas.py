"""Three order processes on one database: their jobs share the work, leave nothing, and cost little when idle."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest

from order.jobs import expired_holds
from order.jobs.relay import BATCH_SIZE, CLAIM_LEASE, RELAY_POLL_INTERVAL
from order.stock import Reservation, ReservationState
from tests.support.eventually import eventually
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop
from tests.support.watching import Watching

REPLICAS = 3

MAX_IDLE_TRANSACTIONS = 10.0
"""Transactions that an idle process may make in a second, for its jobs and its readiness check."""

IDLE_TIME = 10.0
"""Seconds for which they are counted."""


@pytest.fixture
def stock() -> FakeStock:
    return FakeStock()


@pytest.fixture
async def replicas(order_database: str, stock: FakeStock) -> AsyncIterator[list[OrderShop]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(order_shop(order_database, stock)) for _ in range(REPLICAS)]


async def test_relays_send_each_message_once(replicas: list[OrderShop], stock: FakeStock) -> None:
    """The claims of one relay are skipped by the others: without a crash, no message is sent twice."""
    orders = await asyncio.gather(*(replicas[n % REPLICAS].create() for n in range(300)))
    cancelled = orders[::2]
    await asyncio.gather(*(replicas[n % REPLICAS].move("CANCELLED", each.id) for n, each in enumerate(cancelled)))
    await eventually(replicas[0].outbox_is_empty)
    sent = Counter(call for call in stock.calls if call[0] != "reserve")
    assert sent == Counter(
        [*(("confirm", UUID(each.id)) for each in orders), *(("release", UUID(each.id)) for each in cancelled)]
    )


async def test_claims_of_killed_relay_pass_to_others(replicas: list[OrderShop], stock: FakeStock) -> None:
    """It was killed between claim and send. The others take over when its lease ends."""
    orders = [uuid4() for _ in range(BATCH_SIZE)]
    async with replicas[0].connection() as connection:
        await connection.execute(
            "INSERT INTO outbox (order_id, action, attempts, due_time)"
            " SELECT id, 'RELEASE', 1, now() + make_interval(secs => %s) FROM unnest(%s) AS claimed (id)",
            (CLAIM_LEASE, orders),
        )
    began = time.monotonic()
    await eventually(replicas[0].outbox_is_empty, CLAIM_LEASE + 2 * RELAY_POLL_INTERVAL)
    took = time.monotonic() - began
    print(f"taken over after {took:.1f} s")
    assert took > CLAIM_LEASE - 1
    assert Counter(stock.calls) == Counter(("release", each) for each in orders)


async def test_reapers_settle_each_expired_hold(
    order_database: str, stock: FakeStock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They all see the same holds. One that is settled twice stays as it is."""
    monkeypatch.setattr(expired_holds, "HOLD_POLL_INTERVAL", 0.2)
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(order_shop(order_database, stock)) for _ in range(REPLICAS)]
        holds = [uuid4() for _ in range(200)]
        stock.reservations |= {each: Reservation(ReservationState.HELD, "EUR", []) for each in holds}
        stock.overdue = list(holds)
        await eventually(lambda: not stock.overdue)
        async with shops[0].connection() as connection:
            cursor = await connection.execute("SELECT count(*) FROM orders WHERE status = 'EXPIRED'")
            assert await cursor.fetchone() == (len(holds),)
    released = Counter(order_id for name, order_id in stock.calls if name == "release")
    print(f"{released.total() - len(holds)} of {len(holds)} holds were released twice")
    assert released.keys() == set(holds)
    assert max(released.values()) <= REPLICAS
    assert {stock.state(str(each)) for each in holds} == {ReservationState.RELEASED}


async def test_each_tailer_sees_every_event(replicas: list[OrderShop]) -> None:
    orders = await asyncio.gather(*(replicas[n % REPLICAS].create() for n in range(12)))
    watchers = [Watching(replica, order.id) for order in orders for replica in replicas]
    for step in PATHS["RECEIVED"]:
        await asyncio.gather(*(replicas[n % REPLICAS].move(step, each.id) for n, each in enumerate(orders)))
    for watching in watchers:
        await watching.until(4)
        watching.check()


async def test_idle_replicas_make_few_transactions(replicas: list[OrderShop]) -> None:
    async with replicas[0].connection() as connection:

        async def transactions() -> int:
            await connection.execute("SELECT pg_stat_force_next_flush()")
            cursor = await connection.execute(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            )
            row = await cursor.fetchone()
            assert row
            return int(row[0])

        await asyncio.sleep(2)  # what they did at their start is counted
        before, began = await transactions(), time.monotonic()
        await asyncio.sleep(IDLE_TIME)
        rate = (await transactions() - before) / (time.monotonic() - began) / REPLICAS
    print(f"{rate:.1f} transactions a second for each replica")
    assert 1 < rate < MAX_IDLE_TRANSACTIONS
