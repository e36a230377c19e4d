"""The relay sends every message, on any replica, and no message blocks another."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from order.domain import Status
from order.jobs import relay as relay_job
from order.jobs.relay import Outbox, Relay
from order.stock import ProductUnavailable, Reservation, ReservationState
from order.store import OrderStore
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.eventually import eventually
from tests.support.order import A, FakeStock, order_shop


@pytest.fixture
async def database(order_database: str) -> AsyncIterator[Database]:
    database = Database(DatabaseConfig(conninfo=order_database, pool_size=4, pool_waiting=10, timeout=5), "relay")
    await database.open()
    yield database
    await database.close()


async def rows(conninfo: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        cursor = await connection.execute(query.encode(), values)
        return await cursor.fetchall() if cursor.description else []


async def post(conninfo: str, *keys: UUID, action: str = "RELEASE", attempts: int = 0) -> None:
    """Writes messages that are due."""
    for key in keys:
        await rows(
            conninfo,
            "INSERT INTO outbox (order_id, action, attempts, due_time)"
            " VALUES (%s, %s, %s, now() - interval '1 second')",
            key,
            action,
            attempts,
        )


class Poisoned(FakeStock):
    """A product service that cannot release the reservations of some orders."""

    def __init__(self, *poison: UUID, error: Exception | None = None) -> None:
        super().__init__()
        self.poison = poison
        self.error = error or ProductUnavailable()

    async def release(self, order_id: UUID) -> None:
        if order_id in self.poison:
            raise self.error
        await super().release(order_id)


async def test_two_relays_send_every_message(order_database: str) -> None:
    """Each message is sent once as long as no relay crashes."""
    stock = FakeStock()
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(order_shop(order_database, stock)) for _ in range(2)]
        orders = await asyncio.gather(*(shops[n % 2].create() for n in range(100)))
        await asyncio.gather(*(shops[n % 2].move("CANCELLED", order.id) for n, order in enumerate(orders[:50])))

        await eventually(shops[0].outbox_is_empty)
        assert {stock.state(order.id) for order in orders[:50]} == {ReservationState.RELEASED}
        assert {stock.state(order.id) for order in orders[50:]} == {ReservationState.CONFIRMED}
        assert len([call for call in stock.calls if call[0] != "reserve"]) == 150


async def test_claim_of_crashed_relay_expires(
    order_database: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It crashes between claim and send. The claim ends with its lease."""
    monkeypatch.setattr(relay_job, "CLAIM_LEASE", 0.5)
    key = uuid4()
    await post(order_database, key)

    class Crashing(FakeStock):
        async def release(self, order_id: UUID) -> None:
            raise asyncio.CancelledError

    orders = OrderStore(database)
    with pytest.raises(asyncio.CancelledError):
        await Relay(database, orders, Crashing()).step()
    stock = FakeStock()
    relay = Relay(database, orders, stock)
    claimed = time.monotonic()
    await relay.step()
    assert stock.calls == [], "it is claimed still"

    async def told() -> bool:
        await relay.step()
        return stock.state(str(key)) is ReservationState.RELEASED

    await eventually(told, 3)
    assert time.monotonic() - claimed > 0.3


async def test_claim_skips_locked_messages(order_database: str, database: Database) -> None:
    """It does not wait for them."""
    first, second = uuid4(), uuid4()
    await post(order_database, first, second)
    async with await psycopg.AsyncConnection.connect(order_database) as other:
        await other.execute("SELECT FROM outbox WHERE order_id = %s FOR UPDATE", (first,))
        async with asyncio.timeout(2):
            claimed = await Outbox(database).claim(10, 6.0)
    assert [message.order_id for message in claimed] == [second]


async def test_messages_wait_for_the_product_service(order_database: str) -> None:
    stock = FakeStock()
    async with order_shop(order_database, stock) as shop:
        order = await shop.create({A: 1})
        stock.down = True
        await shop.move("CANCELLED", order.id)

        await eventually(lambda: ("release", UUID(order.id)) in stock.calls)
        stock.down = False

        await eventually(lambda: stock.state(order.id) is ReservationState.RELEASED)
        await eventually(shop.outbox_is_empty)


@pytest.mark.parametrize("error", [ProductUnavailable(), KeyError("something of ours")])
async def test_failing_message_does_not_block_others(
    order_database: str, database: Database, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """However often it failed, and for whatever reason. The log names it once in a minute."""
    poison, others = uuid4(), [uuid4() for _ in range(5)]
    await post(order_database, poison, attempts=5_000)
    await post(order_database, *others)
    stock = Poisoned(poison, error=error)
    relay = Relay(database, OrderStore(database), stock)
    await relay.step()
    assert {stock.state(str(key)) for key in others} == {ReservationState.RELEASED}
    left = await rows(
        order_database, "SELECT order_id, attempts, extract(epoch FROM due_time - now())::int FROM outbox"
    )
    assert [row[:2] for row in left] == [(poison, 5_001)]
    assert 25 <= left[0][2] <= relay_job.MAX_SINGLE_RETRY_DELAY, "others get through, so it is its own fault"

    for _ in range(3):
        await rows(order_database, "UPDATE outbox SET due_time = now() - interval '1 second'")
        await relay.step()
    (wait,) = await rows(order_database, "SELECT extract(epoch FROM due_time - now())::int FROM outbox")
    assert wait[0] <= relay_job.MAX_RETRY_DELAY, "nothing gets through, so it may be the product service"
    assert caplog.text.count(f"(RELEASE of order {poison}) failed 5001 times: {error}") == 1
    assert caplog.text.count(" times: ") == 1


class Batched(FakeStock):
    """A product service that counts the calls, and whose confirmations fail while `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []
        self.broken = False

    async def batch_confirm(self, order_ids: Sequence[UUID]) -> Sequence[Reservation | Exception | None]:
        self.batches.append(("confirm", len(order_ids)))
        if self.broken:
            raise ProductUnavailable
        return await super().batch_confirm(order_ids)

    async def batch_release(self, order_ids: Sequence[UUID]) -> Sequence[Exception | None]:
        self.batches.append(("release", len(order_ids)))
        return await super().batch_release(order_ids)


async def test_messages_of_one_action_are_one_call(order_database: str, database: Database) -> None:
    confirms, releases = [uuid4() for _ in range(40)], [uuid4() for _ in range(30)]
    await post(order_database, *confirms, action="CONFIRM")
    await post(order_database, *releases)
    stock = Batched()
    stock.reservations = {key: Reservation(ReservationState.HELD, "EUR", []) for key in confirms}
    relay = Relay(database, OrderStore(database), stock)
    assert await relay.step(), "there may be more"
    assert not await relay.step()
    assert sorted(stock.batches) == [("confirm", 40), ("release", 6), ("release", 24)]
    assert {stock.state(str(key)) for key in confirms} == {ReservationState.CONFIRMED}
    assert {stock.state(str(key)) for key in releases} == {ReservationState.RELEASED}
    assert await rows(order_database, "SELECT * FROM outbox") == []


async def test_failed_confirmations_do_not_stop_releases(order_database: str, database: Database) -> None:
    confirms, releases = [uuid4(), uuid4()], [uuid4(), uuid4()]
    await post(order_database, *confirms, action="CONFIRM")
    await post(order_database, *releases)
    stock = Batched()
    stock.broken = True
    relay = Relay(database, OrderStore(database), stock)
    await relay.step()
    left = await rows(order_database, "SELECT order_id FROM outbox WHERE due_time > now() + interval '0.5 seconds'")
    assert {row[0] for row in left} == set(confirms)
    assert {stock.state(str(key)) for key in releases} == {ReservationState.RELEASED}


async def test_unconfirmed_orders_are_looked_up_together(
    order_database: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages of cancelled and lost orders are done. Those of other orders are parked."""
    looks: list[int] = []
    original = OrderStore.get_statuses

    async def counted(self: OrderStore, order_ids: Sequence[UUID]) -> dict[UUID, Status]:
        looks.append(len(order_ids))
        return await original(self, order_ids)

    monkeypatch.setattr(OrderStore, "get_statuses", counted)
    stock = FakeStock()
    async with order_shop(order_database, stock) as shop:
        orders = [await shop.create() for _ in range(4)]

        await eventually(shop.outbox_is_empty)
        await shop.move("CANCELLED", orders[0].id)
        await eventually(shop.outbox_is_empty)
    looks.clear()
    stock.reservations = {UUID(orders[3].id): Reservation(ReservationState.HELD, "EUR", [])}
    gone = uuid4()
    await post(order_database, *(UUID(order.id) for order in orders), gone, action="CONFIRM")
    await Relay(database, OrderStore(database), stock).step()
    assert looks == [4]
    left = await rows(order_database, "SELECT order_id::text FROM outbox WHERE due_time > now() + '4 minutes'")
    assert {row[0] for row in left} == {orders[1].id, orders[2].id}
    assert len(await rows(order_database, "SELECT * FROM outbox")) == 2


async def test_only_claims_and_deletions_skip_the_disk(order_database: str) -> None:
    """The setting ends with the statement: the same connection writes orders."""
    name = sql.Identifier(str(conninfo_to_dict(order_database)["dbname"]))
    async with await psycopg.AsyncConnection.connect(order_database, autocommit=True) as connection:
        await connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(name))
    await rows(order_database, "CREATE TABLE seen (operation text, setting text)")
    await rows(
        order_database,
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO seen VALUES (tg_op, current_setting('synchronous_commit')); RETURN NULL; END $$",
    )
    await rows(
        order_database,
        "CREATE TRIGGER see AFTER UPDATE OR DELETE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION see()",
    )
    database = Database(DatabaseConfig(conninfo=order_database, pool_size=1, pool_waiting=10, timeout=5), "relay")
    await database.open()
    try:
        box = Outbox(database)
        for _ in range(8):  # prepared and not
            await post(order_database, uuid4(), uuid4())
            messages = await box.claim(10, -1.0)
            assert len(messages) == 2
            assert await _setting(database) == "on"
            await box.postpone({messages[0].id: -1.0})
            await box.delete([message.id for message in messages])
            assert await _setting(database) == "on"
    finally:
        await database.close()
    assert set(await rows(order_database, "SELECT operation, setting FROM seen GROUP BY 1, 2")) == {
        ("UPDATE", "off"),
        ("UPDATE", "on"),  # a postponed message must not be lost
        ("DELETE", "off"),
    }
    assert await rows(order_database, "SELECT * FROM outbox") == []


@dataclass(frozen=True)
class _Setting:
    value: str


async def _setting(database: Database) -> str:
    row = await database.fetch_one("test", "SELECT current_setting('synchronous_commit') AS value", {}, _Setting)
    assert row
    return row.value


async def test_first_failures_are_not_logged(
    order_database: str, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The product service restarts. The message is due after one second, then two, then four."""
    key = uuid4()
    relay = Relay(database, OrderStore(database), Poisoned(key))
    await post(order_database, key)
    waits = []
    for _ in range(4):
        await relay.step()
        (row,) = await rows(
            order_database,
            "WITH before AS (SELECT extract(epoch FROM due_time - now())::float AS wait FROM outbox)"
            " UPDATE outbox SET due_time = now() - interval '1 second' FROM before RETURNING round(wait)::int",
        )
        waits.append(row[0])
    assert waits == [1, 2, 4, 5]
    assert " times: " not in caplog.text


async def test_message_without_order_is_dropped(order_database: str, database: Database) -> None:
    """A restored database has lost its order: there is nothing to confirm."""
    await post(order_database, uuid4(), action="CONFIRM")
    await Relay(database, OrderStore(database), FakeStock()).step()
    assert await rows(order_database, "SELECT * FROM outbox") == []


async def test_order_without_stock_is_logged(order_database: str, caplog: pytest.LogCaptureFixture) -> None:
    """A restored product database has lost its reservation. The message is parked."""
    stock = FakeStock()
    async with order_shop(order_database, stock) as shop:
        order = await shop.create()
        stock.reservations.clear()

        await eventually(lambda: f"order {order.id} has no stock" in caplog.text)
        await asyncio.sleep(0.1)
        assert len(await rows(shop.conninfo, "SELECT * FROM outbox WHERE due_time > now() + '4 minutes'")) == 1
