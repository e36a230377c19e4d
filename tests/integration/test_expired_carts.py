"""The purger deletes expired carts and the ids of old requests, and nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psycopg
import pytest

from bench.plans import Planned, Plans, describe
from order.jobs import expired_carts
from order.jobs.expired_carts import CartPurger
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.eventually import eventually
from tests.support.order import FakeStock, order_shop

LOCK = b"SELECT FROM cart WHERE owner = %s FOR NO KEY UPDATE"


@pytest.fixture
async def database(order_database: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(conninfo=order_database, pool_size=4, pool_waiting=10, timeout=5)
    database = Database(config, "purger")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expired_carts, "PAUSE_FACTOR", 0)


@pytest.fixture
def connection(order_database: str) -> Iterator["psycopg.Connection[tuple[str]]"]:
    with psycopg.connect(order_database, autocommit=True) as connection:
        yield connection


Connection = psycopg.Connection[tuple[str]]


def add_carts(connection: Connection, age: str, *owners: str) -> None:
    """Writes carts that expired an `age` ago."""
    connection.execute(
        "INSERT INTO cart (owner, expire_time) SELECT owner, now() - %s::interval FROM unnest(%s::text[]) AS owner",
        (age, list(owners)),
    )


def add_requests(connection: Connection, age: str, number: int) -> None:
    """Writes ids of requests that came an `age` ago."""
    connection.execute(
        "INSERT INTO cart_add (cart_id, request_id, product_id, quantity, create_time)"
        " SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, now() - %s::interval"
        " FROM generate_series(1, %s)",
        (age, number),
    )


def owners(connection: Connection) -> list[str]:
    return [owner for (owner,) in connection.execute("SELECT owner FROM cart ORDER BY owner").fetchall()]


def requests(connection: Connection) -> int:
    return len(connection.execute("SELECT FROM cart_add").fetchall())


async def test_only_what_has_expired_is_deleted(database: Database, connection: Connection) -> None:
    add_carts(connection, "1 second", "expired", "merged")
    connection.execute("UPDATE cart SET merged_into = gen_random_uuid() WHERE owner = 'merged'")
    add_carts(connection, "-1 minute", "kept")
    add_requests(connection, "24 hours 1 minute", 2)
    add_requests(connection, "23 hours 59 minutes", 3)
    assert not await CartPurger(database).step()
    assert owners(connection) == ["kept"]
    assert requests(connection) == 3


@pytest.mark.usefixtures("no_pauses")
async def test_purgers_share_the_batches(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_carts, "PURGE_BATCH_SIZE", 3)
    add_carts(connection, "1 day", *(f"expired {n}" for n in range(29)), "kept")
    connection.execute("UPDATE cart SET expire_time = now() + interval '1 day' WHERE owner = 'kept'")
    add_requests(connection, "2 days", 20)
    purgers = [CartPurger(database) for _ in range(3)]
    assert await purgers[0].step(), "there may be more"
    assert len(owners(connection)) == 27
    assert requests(connection) == 17

    async def work(purger: CartPurger) -> None:
        while await purger.step():
            pass

    await asyncio.gather(*map(work, purgers))
    await work(purgers[0])  # what another one had locked when the last one looked
    assert owners(connection) == ["kept"]
    assert requests(connection) == 0


@pytest.mark.usefixtures("no_pauses")
async def test_locked_cart_is_left_for_later(
    database: Database, connection: Connection, order_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It delays nothing, and is tried again after the last batch."""
    monkeypatch.setattr(expired_carts, "PURGE_BATCH_SIZE", 2)
    add_carts(connection, "2 days", "locked")
    add_carts(connection, "1 day", "b", "c", "d")
    purger = CartPurger(database)
    with psycopg.connect(order_database) as other:
        other.execute(LOCK, ("locked",))
        async with asyncio.timeout(2):
            assert [await purger.step() for _ in range(2)] == [True, False]
        assert owners(connection) == ["locked"]
    assert not await purger.step()
    assert owners(connection) == []


async def test_cart_that_is_renewed_meanwhile_is_kept(
    database: Database, connection: Connection, order_database: str
) -> None:
    """A customer's expired cart lives on when they come back."""
    add_carts(connection, "1 day", "back")
    with psycopg.connect(order_database) as other:
        other.execute("UPDATE cart SET expire_time = now() + interval '2 days'")
        await CartPurger(database).step()
    await CartPurger(database).step()
    assert owners(connection) == ["back"]


async def test_purger_pauses_for_longer_than_it_works(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_carts, "PURGE_BATCH_SIZE", 1)
    slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN OLD; END'"
    connection.execute(slow.encode())
    connection.execute("CREATE TRIGGER slow BEFORE DELETE ON cart FOR EACH ROW EXECUTE FUNCTION slow()")
    add_carts(connection, "1 day", "a", "b")
    start = monotonic()
    assert await CartPurger(database).step()
    assert monotonic() - start >= 0.05 * (1 + expired_carts.PAUSE_FACTOR)


@pytest.mark.usefixtures("no_pauses")
async def test_backlog_is_logged_once_a_minute(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expired_carts, "PURGE_BATCH_SIZE", 1)
    caplog.set_level(logging.INFO, expired_carts.__name__)
    add_carts(connection, "1 day", *"abcde")
    add_requests(connection, "2 days", 2)
    purger = CartPurger(database)
    while await purger.step():
        pass
    await purger.step()
    assert caplog.messages == [
        "deleted 1 expired carts and the ids of 1 old requests",  # the first batch
        "deleted 4 expired carts and the ids of 1 old requests",  # all others, within a minute
    ]


@dataclass
class Both:
    """Runs a statement in a database, or measures it."""

    current: Database | Plans

    async def fetch_one(self, *args: Any) -> object:
        return await self.current.fetch_one(*args)


@pytest.mark.usefixtures("no_pauses")
async def test_batch_reads_its_own_rows_only(database: Database, order_database: str, connection: Connection) -> None:
    """It reads neither the rows that are kept, nor, before they are vacuumed, those of earlier batches."""
    for table in ("cart", "cart_add"):
        connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
    for age in ("2 days", "0 days"):
        add_carts(connection, age, *(f"{age} {n}" for n in range(8_000)))
        add_requests(connection, age, 8_000)
    connection.execute("UPDATE cart SET expire_time = expire_time + random() * interval '20 hours'")
    connection.execute("UPDATE cart_add SET create_time = create_time + random() * interval '20 hours'")
    connection.execute("VACUUM ANALYZE cart, cart_add")
    with closing(Plans(order_database)) as plans, psycopg.connect(order_database) as reader:
        # A transaction that is older than the deletes, so that no index forgets what they have deleted.
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT FROM cart")
        both = Both(database)
        purger = CartPurger(both)  # type: ignore[arg-type]  # in the place of a Database
        for batches in (12, 0):
            both.current = plans
            for rows in (purger.carts, purger.adds):
                with pytest.raises(Planned) as planned:
                    await rows.delete_batch()
                cost = planned.value.cost
                assert cost.buffers <= 6 * expired_carts.PURGE_BATCH_SIZE, describe(cost.plan)
            both.current = database
            for _ in range(batches):
                assert await purger.step()


async def test_running_service_purges(order_database: str, connection: Connection) -> None:
    add_carts(connection, "1 day", "expired")
    async with order_shop(order_database, FakeStock()):
        await eventually(lambda: owners(connection) == [], seconds=5)
