"""`order reconcile` refuses databases that do not belong together, and too many changes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from local.server_programs import installed
from order.jobs import expired_holds, reconcile
from order.jobs.comparison import Comparison
from order.jobs.ordered_carts import OrderedCarts
from order.jobs.reconcile import Options
from order.jobs.repair import Repair, TooManyChanges
from order.jobs.report import Report
from order.product_calls import ProductCalls
from order.stock import DatabasePair, ProductOutdated
from order.stock_client import StockClient
from order.store import OrderStore
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.access import credential, credentials
from tests.support.both import Both, both_shops, parse
from tests.support.database import REPOSITORY, DatabaseServer
from tests.support.eventually import eventually
from tests.support.order import FakeStock, order_shop

ORDERS = 12


@pytest.fixture
async def both(order_database: str, product_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    """A shop with orders that have their stock, and paired databases. Its reaper does not poll again."""
    monkeypatch.setattr(expired_holds, "HOLD_POLL_INTERVAL", 600)
    async with both_shops(order_database, product_database) as both, both.shop.connection() as orders:
        mug = await both.products.create("Mug", stock=100)
        await asyncio.gather(*(both.shop.create({mug.id: 4}) for _ in range(ORDERS)))
        await both.settle()

        await eventually(lambda: is_paired(orders))
        yield both


async def is_paired(orders: psycopg.AsyncConnection[Any]) -> bool:
    row = await (await orders.execute("SELECT partner_id FROM database_identity")).fetchone()
    return row != (None,)


async def run(conninfo: str, *statements: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


NEW_ID = "UPDATE database_identity SET id = gen_random_uuid(), partner_id = NULL"
"""Gives a database a new id, as its migration does. The databases of tests are clones with the same id."""

ONE_ORDER = "INSERT INTO orders (id, number, status) VALUES (gen_random_uuid(), 'INV-1', 'PLACED')"


SOUND = [f"compared: {ORDERS} reservations with stock, {ORDERS} orders not cancelled"]
"""The report of a consistent shop."""


async def untouched(both: Both) -> None:
    """Checks that all orders are placed and have their stock, and that a run with the right database says so."""
    assert await both.reconcile() == SOUND
    await both.settle()
    async with both.shop.connection() as orders, both.products.connection() as products:
        statuses = await (await orders.execute("SELECT status, count(*) FROM orders GROUP BY status")).fetchall()
        stock = await (await products.execute("SELECT stock FROM product")).fetchall()
    assert (statuses, stock) == ([("PLACED", ORDERS)], [(100 - 4 * ORDERS,)])


@contextmanager
def other_order_database(postgres: DatabaseServer, *statements: str) -> Iterator[str]:
    """Yields an order database with another id."""
    with postgres.database("order") as conninfo:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            for statement in (NEW_ID, *statements):
                connection.execute(statement.encode())
        yield conninfo


async def test_databases_of_other_shops_are_refused(both: Both, postgres: DatabaseServer) -> None:
    """DATABASE_URL is wrong, or the backup is not restored yet. Neither this run nor the next one changes anything."""
    belongs = "refused: the product database belongs to order database "
    with (
        other_order_database(postgres) as new,
        other_order_database(postgres, ONE_ORDER) as foreign,
        other_order_database(postgres, "UPDATE database_identity SET partner_id = gen_random_uuid()") as of_another,
        postgres.database("order") as empty,
    ):
        for database in (new, foreign, both.products.conninfo):
            for options in ([], ["--force"], ["--dry-run"]):
                (line,) = await both.reconcile(*options, database_url=database)
                assert line.startswith(belongs)
                assert "is DATABASE_URL right, and is the backup restored?" in line
                assert line.endswith("If the two databases belong together, confirm it with --adopt")
        # Tombstones are no orders.
        await run(empty, "INSERT INTO orders (id, status) VALUES (gen_random_uuid(), 'EXPIRED')")
        for options in ([], ["--dry-run"], ["--adopt"]):
            (line,) = await both.reconcile(*options, database_url=empty)
            assert line.startswith("refused: the order database has no orders, but there are reservations; ")
        await untouched(both)

        # Where product knows none yet, what order knows is enough.
        await both.in_products("UPDATE database_identity SET partner_id = NULL")
        (line,) = await both.reconcile(database_url=of_another)
        assert line.startswith("refused: this order database belongs to product database ")
        # And a run that refuses, or is dry, makes no pair of them.
        for options in ([], ["--dry-run"]):
            (line,) = await both.reconcile(*options, database_url=new)
            assert line.startswith("refused: the order database has no orders")
        async with both.products.connection() as connection:
            cursor = await connection.execute("SELECT partner_id FROM database_identity")
            assert await cursor.fetchone() == (None,)
    await untouched(both)


async def test_adopt_pairs_two_databases(both: Both) -> None:
    """The backup is older than the ids, so a migration made a new one."""
    await both.in_orders(NEW_ID)
    assert await both.reconcile("--adopt", "--dry-run") == SOUND
    (line,) = await both.reconcile()
    assert line.startswith("refused: "), "a dry run records nothing"
    assert await both.reconcile("--adopt") == SOUND
    await untouched(both)


def dump_and_restore(postgres: DatabaseServer, of: str, into: str) -> str:
    """Restores a backup of an order database into another one. Returns the connection string of its role."""
    source, name = [str(conninfo_to_dict(each)["dbname"]) for each in (of, into)]
    programs, server = installed() / "bin", postgres.postgres
    dump = [str(programs / "pg_dump"), "--format=custom", f"--dbname={server.conninfo(source)}"]
    backup = subprocess.run(dump, check=True, capture_output=True).stdout
    restore = [str(programs / "pg_restore"), f"--dbname={server.conninfo(name)}"]
    subprocess.run(restore, input=backup, check=True, capture_output=True)
    return server.conninfo(name, "order")


async def test_restored_backup_is_recognized(both: Both, postgres: DatabaseServer) -> None:
    with postgres.database() as other:
        restored = await asyncio.to_thread(dump_and_restore, postgres, both.shop.conninfo, other)
        assert await both.reconcile(database_url=restored) == SOUND
    await untouched(both)


class TestManyChanges:
    async def test_more_than_a_tenth_needs_force(self, both: Both) -> None:
        """They are counted first, and none is made."""
        await both.in_orders(
            f"DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT {reconcile.MAX_UNFORCED_CHANGES + 1})"
        )
        many = f"11 of {ORDERS} orders would change (11 released), which is more than 10%"
        assert await both.reconcile() == [f"refused: {many}; list them with --dry-run, or make them with --force"]
        lines = await both.reconcile("--dry-run")
        assert len([line for line in lines if line.endswith("; to be released")]) == 11
        assert lines[-1] == f"this was a dry run; run the command with --force, since {many}"
        async with both.products.connection() as connection:
            cursor = await connection.execute("SELECT state, count(*) FROM reservation GROUP BY state")
            assert await cursor.fetchall() == [("CONFIRMED", ORDERS)]
        lines = await both.reconcile("--force")
        assert len([line for line in lines if line.endswith("; released")]) == 11
        await both.settle()
        assert await both.reconcile() == ["compared: 1 reservations with stock, 1 orders not cancelled"]

    async def test_ten_changes_need_no_force(self, both: Both) -> None:
        await both.in_orders(
            f"DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT {reconcile.MAX_UNFORCED_CHANGES})"
        )
        lines = await both.reconcile()
        assert len([line for line in lines if line.endswith("; released")]) == reconcile.MAX_UNFORCED_CHANGES

    async def test_repair_stops_at_the_planned_number(self, both: Both) -> None:
        """A database was replaced between the plan and the repair."""
        await both.in_orders("DELETE FROM orders")
        config = DatabaseConfig(conninfo=both.shop.conninfo, pool_size=1, pool_waiting=1, timeout=5)
        database = Database(config, "test")
        await database.open()
        lines: list[str] = []
        async with grpc.aio.insecure_channel(both.products.address) as channel:
            orders, stock = OrderStore(database), StockClient(channel, ProductCalls(credential()))
            carts = OrderedCarts(database)
            report = Report(lines.append, planned=False)
            repair = Repair(orders, stock, carts, report, max_changes=3)
            with pytest.raises(TooManyChanges):
                await repair.apply_all(Comparison(orders, stock, carts, report.counts).findings())
        await database.close()
        assert len(lines) == report.changes == 3
        async with both.products.connection() as connection:
            cursor = await connection.execute("SELECT count(*) FROM reservation WHERE state = 'RELEASED'")
            assert await cursor.fetchone() == (3,)


class TestReaper:
    """The reaper leaves the holds of other shops alone."""

    @pytest.fixture
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expired_holds, "HOLD_POLL_INTERVAL", 0.1)

    @pytest.mark.usefixtures("quick")
    async def test_holds_of_another_shop_are_left_alone(
        self, order_database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It logs that once, and goes on when the databases belong together."""

        class Other(FakeStock):
            order_database: UUID | None = uuid4()
            asked = 0

            async def pair(self, *args: Any, **options: Any) -> DatabasePair:
                self.asked += 1
                return DatabasePair(UUID(int=1), self.order_database)

        stock = Other()
        stock.overdue = [uuid4()]
        async with order_shop(order_database, stock):
            await eventually(lambda: stock.asked > 3)
            assert stock.calls == []
            assert (
                caplog.text.count("expired holds are left alone: the product database belongs to order database") == 1
            )
            stock.order_database = None

            await eventually(lambda: not stock.overdue)

    @pytest.mark.usefixtures("quick")
    async def test_older_product_service_needs_no_pairing(self, order_database: str) -> None:
        class Older(FakeStock):
            async def pair(self, *args: Any, **options: Any) -> DatabasePair:
                raise ProductOutdated

        stock = Older()
        stock.overdue = [uuid4()]
        async with order_shop(order_database, stock):
            await eventually(lambda: not stock.overdue)


class TestCommand:
    """`order reconcile` as a process."""

    def reconcile(self, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "order", "reconcile", *options],
            cwd=REPOSITORY,
            env={**os.environ, "INTERNAL_CREDENTIALS": str(credentials()), **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_help_explains_options_and_refusals(self) -> None:
        done = self.reconcile("--help")
        assert done.returncode == 0
        for word in ("--dry-run", "--force", "--adopt", "refuses", "exit status"):
            assert word in done.stdout

    async def test_refusal_is_one_line_and_exit_status_1(self, both: Both) -> None:
        await both.in_orders(NEW_ID)
        await run(both.shop.conninfo, NEW_ID)
        done = await asyncio.to_thread(
            self.reconcile, DATABASE_URL=both.shop.conninfo, PRODUCT_TARGET=f"dns:///{both.products.address}"
        )
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("order: refused: the product database belongs to order database ")

    async def test_forbidden_database_is_one_line(self, both: Both, postgres: DatabaseServer) -> None:
        """The product database, with the role of order."""
        name = str(conninfo_to_dict(both.products.conninfo)["dbname"])
        done = await asyncio.to_thread(
            self.reconcile,
            DATABASE_URL=postgres.postgres.conninfo(name, "order"),
            PRODUCT_TARGET=f"dns:///{both.products.address}",
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith("order: order database error: permission denied for ")
        assert "Traceback" not in done.stderr

    def test_wrong_options_are_refused(self) -> None:
        """An abbreviated option must not be ignored."""
        with pytest.raises(SystemExit) as error:
            parse(["--dry"])
        assert error.value.code == 2
        assert parse([]) == Options(dry_run=False, force=False, adopt=False)
        assert parse(["--dry-run", "--force"]) == Options(dry_run=True, force=True)
