"""While the order database accepts no writes, no stock is reserved."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from order.jobs import expired_holds
from order.stock import ReservationState
from tests.support.eventually import eventually
from tests.support.order import A, FakeStock, OrderShop, order_shop
from tests.support.product import refused

CALLERS = 20


@asynccontextmanager
async def full(shop: OrderShop) -> AsyncIterator[None]:
    """Makes inserts into `orders` fail during the block, as a full disk does."""
    async with shop.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$;"
            " CREATE TRIGGER no_room BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION no_room()"
        )
        yield
        await connection.execute("DROP TRIGGER no_room ON orders")


async def backends(shop: OrderShop) -> set[int]:
    async with shop.connection() as connection:
        rows = await connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'order' AND datname = current_database()"
        )
        return {row[0] for row in await rows.fetchall()}


async def test_full_disk_pauses_reservations(
    order_database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expired_holds, "HOLD_POLL_INTERVAL", 0.2)
    caplog.set_level(logging.INFO, "runtime.readiness")
    stock = FakeStock()
    async with order_shop(order_database, stock) as shop:
        key = str(uuid4())
        placed = await shop.create(request_id=key)
        before = await backends(shop)
        stock.calls.clear()
        async with full(shop):
            for _ in range(CALLERS):
                with refused() as error:
                    await shop.create()
                assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "DATABASE_FULL")
                assert error.message == "the database is full; nothing was written"
                assert error.retry_after == 30
            ((_, held),) = [call for call in stock.calls if call[0] == "reserve"]
            assert stock.state(str(held)) is ReservationState.HELD
            assert [each.message for each in caplog.records if each.message.startswith("order.insert")] == [
                "order.insert: the database is full; nothing was written (SQLSTATE 53100)"
            ]
            assert await backends(shop) == before, "its connections are as good as before"
            assert await shop.get(placed.id) == placed
            assert await shop.create(request_id=key) == placed, "an order that is there is the answer"
            assert await shop.move("PROCESSED", placed.id), "what needs no room goes on"
            # The hold cannot be freed while no tombstone can be written.
            stock.overdue = [UUID(str(held))]
            full_message = "expired-hold reaper: the database is full; nothing was written"
            await eventually(lambda: full_message in [each.message for each in caplog.records])
            assert stock.state(str(held)) is ReservationState.HELD

        await eventually(lambda: stock.state(str(held)) is ReservationState.RELEASED, 15)
        await eventually(lambda: accepts(shop), 15)
        assert "the database accepts writes again" in [each.message for each in caplog.records]


async def accepts(shop: OrderShop) -> bool:
    try:
        await shop.create({A: 1})
    except Exception as error:
        logging.getLogger(__name__).info("not yet: %s", error)
        return False
    return True


async def test_read_only_database_pauses_reservations(order_database: str) -> None:
    stock = FakeStock()
    name = sql.Identifier(str(conninfo_to_dict(order_database)["dbname"]))
    change = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    async with order_shop(order_database, stock) as shop, shop.connection() as connection:
        placed = await shop.create()
        await connection.execute(change.format(name, sql.SQL("on")))
        await terminate(connection)
        with refused() as error:
            await shop.create()
        assert (error.code, error.reason) == ("UNAVAILABLE", "DATABASE_READ_ONLY")
        stock.calls.clear()
        for _ in range(3):
            with refused() as error:
                await shop.create()
            assert error.reason == "DATABASE_READ_ONLY"
        assert not stock.calls
        assert await shop.get(placed.id) == placed
        # A process that starts meanwhile serves reads and streams, too.
        async with order_shop(order_database, stock) as other:
            assert await other.get(placed.id) == placed
            async with asyncio.timeout(5):
                assert (await other.stream(placed.id).read()).version == 1
        await connection.execute(change.format(name, sql.SQL("off")))
        await terminate(connection)

        await eventually(lambda: accepts(shop), 15, interval=0.1)


async def terminate(connection: "psycopg.AsyncConnection[object]") -> None:
    """Ends the connections of the service: only new ones have changed settings."""
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
