"""Orders are written, read and moved in batches. Each order succeeds or fails by itself."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from order.convert import order_message
from order.domain import Draft, Item, Order, Status, Tombstone
from runtime import driver_errors
from runtime.database import ConstraintViolation, Database
from tests.support.invariants_order import check_logs
from tests.support.locks import until_waiting
from tests.support.order import FakeStock, OrderShop, order_shop, status_name
from tests.support.replica import ITEMS, TEXTS, Replica, replica_on


@pytest.fixture
async def replica(order_database: str) -> AsyncIterator[Replica]:
    async with replica_on(order_database) as replica:
        yield replica


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQLSTATEs of statements that conflicted with another one and were repeated."""
    seen: list[str] = []
    is_race = driver_errors.is_race

    def noting(error: psycopg.Error) -> bool:
        if lost := is_race(error):
            seen.append(str(error.sqlstate))
        return lost

    monkeypatch.setattr(driver_errors, "is_race", noting)
    return seen


async def rows(conninfo: str, query: str, *params: object) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        return await (await connection.execute(query.encode(), params)).fetchall()


async def check(conninfo: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await check_logs(connection)


class TestInsert:
    async def test_concurrent_inserts_are_one_statement(self, order_database: str, replica: Replica) -> None:
        ids = [uuid4() for _ in range(20)]
        placed = await replica.insert_all(ids)
        assert replica.ran == ["order.insert"]
        assert [each.id for each in placed if each] == ids
        assert len({each.number for each in placed if each}) == 20
        messages = await rows(order_database, "SELECT order_id FROM outbox WHERE action = 'CONFIRM'")
        assert {row[0] for row in messages} == set(ids)
        await check(order_database)

    async def test_insert_returns_what_was_written(self, replica: Replica) -> None:
        ids = [uuid4() for _ in range(3)]
        for order in await replica.insert_all(ids):
            assert order
            assert await replica.store.get(order.id) == order

    async def test_taken_id_does_not_affect_the_batch(self, replica: Replica) -> None:
        """The id of an order or of a tombstone."""
        ids = [uuid4() for _ in range(5)]
        await replica.insert(ids[1])
        await replica.store.insert_tombstones([ids[3]])
        placed = await replica.insert_all(ids)
        assert [each is None for each in placed] == [False, True, False, True, False]

    async def test_same_id_is_inserted_once(self, replica: Replica) -> None:
        key = uuid4()
        placed = await replica.insert_all([key] * 5)
        assert len([each for each in placed if each]) == 1

    @pytest.mark.parametrize(
        ("draft", "items", "error"),
        [
            (replace(TEXTS, notes="a\0b"), ITEMS, psycopg.DataError),
            (replace(TEXTS, notes="half a pair: \ud800"), ITEMS, psycopg.DataError),
            (TEXTS, [replace(ITEMS[0], price_micros=-1)], ConstraintViolation),
            (TEXTS, [replace(ITEMS[0], price_micros=10**40)], psycopg.DataError),
        ],
        ids=["NUL", "surrogate", "negative", "too large"],
    )
    async def test_invalid_order_fails_alone(
        self, order_database: str, replica: Replica, draft: Draft, items: list[Item], error: type[Exception]
    ) -> None:
        """The API accepts none of these."""
        good = [uuid4() for _ in range(4)]
        *placed, bad = await asyncio.gather(
            *map(replica.insert, good), replica.insert(uuid4(), draft, items), return_exceptions=True
        )
        assert isinstance(bad, error)
        assert [each.id for each in placed if isinstance(each, Order)] == good
        assert await rows(order_database, "SELECT count(*) FROM orders") == [(4,)]
        await check(order_database)

    async def test_all_of_unicode_is_stored_unchanged(self, replica: Replica) -> None:
        """All of Unicode but NUL and surrogates, which no request can contain."""
        letters = "".join(map(chr, (*range(1, 0xD800), *range(0xE000, 0x110000))))
        odd = ["\\u0000", '\\"', "\\\\ud800", "null", "{}", "'; --", "%(id)s", "\ufeff", ""]
        texts = [letters[start : start + 100_000] for start in range(0, len(letters), 100_000)] + odd
        drafts = [
            Draft(
                lines=(),
                customer_name=text,
                customer_email=text[:200],  # it is in an index, whose entries are short
                customer_phone=text,
                shipping_address=text,
                payment_method=text,
                notes=text[::-1],
            )
            for text in texts
        ]
        item = ITEMS[0]
        placed = await asyncio.gather(
            *(
                replica.insert(uuid4(), draft, [replace(item, name=text)])
                for draft, text in zip(drafts, texts, strict=True)
            )
        )
        assert replica.ran == ["order.insert"]
        for order, draft, text in zip(placed, drafts, texts, strict=True):
            assert order
            found = await replica.store.get(order.id)
            assert found
            assert found == order
            assert (found.customer_name, found.notes) == (text, draft.notes)
            assert found.items[0].name == text
            assert found.fingerprint == draft.fingerprint()

    @pytest.mark.parametrize("price", [2**53 + 1, 10**15 - 1, 2**63 - 1])
    async def test_large_totals_are_exact(self, replica: Replica, price: int) -> None:
        """They exceed the precision of a double, and 64 bits."""
        items = [Item(product_id=str(uuid4()), quantity=2**31 - 1, name="Gold", price_micros=price) for _ in range(50)]
        order = await replica.insert(uuid4(), TEXTS, items)
        assert order
        found = await replica.store.get(order.id)
        assert found
        assert found == order
        assert found.total_micros == price * (2**31 - 1) * 50
        assert found.items == items

    async def test_blocked_batch_does_not_block_others(self, order_database: str, replica: Replica) -> None:
        """Another transaction writes a row with the id of an order, and does not commit."""
        key = uuid4()
        async with await psycopg.AsyncConnection.connect(order_database) as other:
            await other.execute("INSERT INTO orders (id, status) VALUES (%s, 'EXPIRED')", (key,))
            stuck = asyncio.create_task(replica.insert(key))
            await until_waiting(order_database, 1)
            async with asyncio.timeout(5):
                assert all(await replica.insert_all([uuid4() for _ in range(10)]))
            assert not stuck.done()
            await other.rollback()
        assert await stuck

    async def test_inserts_in_opposite_order_do_not_deadlock(
        self, order_database: str, replica: Replica, races: list[str]
    ) -> None:
        """Both replicas have written some of the orders, and wait for one in the middle."""
        ids = sorted(uuid4() for _ in range(9))
        async with (
            replica_on(order_database) as second,
            await psycopg.AsyncConnection.connect(order_database) as other,
        ):
            await other.execute("INSERT INTO orders (id, status) VALUES (%s, 'EXPIRED')", (ids[4],))
            forth = asyncio.create_task(replica.insert_all(ids))
            await until_waiting(order_database, 1)
            back = asyncio.create_task(second.insert_all(ids[::-1]))
            await until_waiting(order_database, 2)
            await other.rollback()
            results = zip(await forth, reversed(await back), strict=True)
        assert [(one is None) + (two is None) for one, two in results] == [1] * 9
        assert not races
        await check(order_database)


class TestMove:
    @pytest.fixture
    async def ids(self, replica: Replica) -> list[UUID]:
        ids = sorted(uuid4() for _ in range(9))
        await replica.insert_all(ids)
        replica.ran.clear()
        return ids

    async def test_concurrent_moves_are_one_statement(
        self, order_database: str, replica: Replica, ids: list[UUID]
    ) -> None:
        assert all(await replica.move_all(ids))
        assert replica.ran == ["order.move"]
        messages = await rows(order_database, "SELECT order_id FROM outbox WHERE action = 'RELEASE'")
        assert {row[0] for row in messages} == set(ids)
        await check(order_database)

    async def test_each_move_has_its_own_target_and_version(
        self, order_database: str, replica: Replica, ids: list[UUID]
    ) -> None:
        await replica.store.insert_tombstones([tombstone := uuid4()])
        results = await asyncio.gather(
            replica.store.move(ids[0], Status.PROCESSED, None),
            replica.store.move(ids[1], Status.CANCELLED, 1),
            replica.store.move(ids[2], Status.DELIVERED, None),
            replica.store.move(ids[3], Status.PROCESSED, 2),
            replica.store.move(uuid4(), Status.PROCESSED, None),
            replica.store.move(tombstone, Status.CANCELLED, None),
        )
        assert [(order and (order.status, order.version), moved) for order, moved in results] == [
            (("PROCESSED", 2), True),
            (("CANCELLED", 2), True),
            (("PLACED", 1), False),
            (("PLACED", 1), False),
            (None, False),
            (None, False),
        ]
        for order, _ in results:
            if order:
                found = await replica.store.get(order.id)
                assert found
                assert order_message(found) == order_message(order)
        assert await rows(order_database, "SELECT order_id FROM outbox WHERE action = 'RELEASE'") == [(ids[1],)]
        await check(order_database)

    async def test_concurrent_moves_of_one_order_move_it_once(
        self, order_database: str, replica: Replica, ids: list[UUID]
    ) -> None:
        assert sum(await replica.move_all([*[ids[0]] * 10, *ids])) == 9
        await check(order_database)

    async def test_locked_order_does_not_block_others(
        self, order_database: str, replica: Replica, ids: list[UUID]
    ) -> None:
        """Not even the others of its batch."""
        async with await psycopg.AsyncConnection.connect(order_database) as other:
            await other.execute("SELECT FROM orders WHERE id = %s FOR UPDATE", (ids[4],))
            moves = {each: asyncio.create_task(replica.store.move(each, Status.PROCESSED, None)) for each in ids}
            stuck = moves.pop(ids[4])
            async with asyncio.timeout(5):
                assert all(moved for _, moved in await asyncio.gather(*moves.values()))
                assert replica.ran[0] == "order.move"
                await until_waiting(order_database, 1)
            assert not stuck.done()
            await other.rollback()
        order, moved = await stuck
        assert order
        assert moved
        await check(order_database)

    async def test_moves_in_opposite_order_do_not_deadlock(
        self, order_database: str, replica: Replica, ids: list[UUID], races: list[str]
    ) -> None:
        async with (
            replica_on(order_database) as second,
            await psycopg.AsyncConnection.connect(order_database) as other,
        ):
            await other.execute("SELECT FROM orders WHERE id = %s FOR UPDATE", (ids[4],))
            forth = asyncio.create_task(replica.move_all(ids))
            back = asyncio.create_task(second.move_all(ids[::-1]))
            await until_waiting(order_database, 2)
            await other.rollback()
            results = zip(await forth, reversed(await back), strict=True)
        assert [one + two for one, two in results] == [1] * 9
        assert not races
        await check(order_database)


async def test_concurrent_reads_are_one_statement(replica: Replica) -> None:
    ids = [uuid4() for _ in range(10)]
    await replica.insert_all(ids)
    await replica.store.insert_tombstones([tombstone := uuid4()])
    replica.ran.clear()
    wanted = [*ids, tombstone, uuid4(), ids[0]]
    found = await asyncio.gather(*map(replica.store.get, wanted))
    assert replica.ran == ["order.find"]
    assert [each and each.id for each in found] == [*ids, None, None, ids[0]]
    assert await replica.store.find(tombstone) == Tombstone(tombstone)


@pytest.fixture
def lost_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs each statement twice, as if its connection was lost before the response."""
    fetch: Any = Database.fetch

    async def fetch_twice(self: Database, *args: Any, **options: Any) -> Any:
        await fetch(self, *args, **options)
        return await fetch(self, *args, **options)

    monkeypatch.setattr(Database, "fetch", fetch_twice)


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


async def test_repeated_statements_take_effect_once(order_database: str, shop: OrderShop, lost_responses: None) -> None:
    orders = await asyncio.gather(*(shop.create(request_id=str(uuid4())) for _ in range(10)))
    assert len({each.number for each in orders}) == 10
    moved = await asyncio.gather(*(shop.move("PROCESSED", each.id, etag=each.etag) for each in orders))
    assert {(status_name(each), each.etag) for each in moved} == {("PROCESSED", "2")}
    cancelled = await asyncio.gather(*(shop.move("CANCELLED", each.id) for each in orders))
    assert {(status_name(each), each.etag) for each in cancelled} == {("CANCELLED", "3")}
    await check(order_database)
