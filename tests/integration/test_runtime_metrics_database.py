"""What a process measures of its databases, each by its real cause."""

import asyncio
from collections.abc import AsyncIterator
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from local.settings import free_ports
from runtime.config import DatabaseConfig
from runtime.database import ConstraintViolation, Database
from runtime.errors import ApiError
from runtime.schema import Schema
from runtime.telemetry.metrics import Metrics
from runtime.telemetry.parts import measure_databases
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.metrics import Scrape, measuring, read, scrape
from tests.support.product import product_shop
from tests.support.runtime_database import Number, execute, opened

SCHEMA = Schema(["0001_step"])

POOL = {"db_client_connection_pool_name": "test"}

MIGRATED = (
    "CREATE TABLE schema_migration (version int, name text); INSERT INTO schema_migration VALUES (1, '0001_step')"
)


@pytest.fixture
def metrics() -> Metrics:
    return measuring()


@pytest.fixture
async def database(empty_database: str, metrics: Metrics) -> AsyncIterator[Database]:
    """Has one connection, for which one call may wait."""
    config = DatabaseConfig(conninfo=empty_database, pool_size=1, pool_waiting=1, timeout=2)
    database = Database(config, "test", write_probe="CREATE TABLE probe ()")
    measure_databases(metrics, database)
    async with opened(database):
        await one(database)
        yield database


async def one(database: Database) -> None:
    await database.fetch("one", "SELECT 1 AS n", {}, Number)


async def raise_state(database: Database, state: LiteralString) -> None:
    """Runs a statement that fails with a SQLSTATE."""
    with pytest.raises((ApiError, psycopg.Error, ConstraintViolation)):
        await database.execute("fail", f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$", {})


def errors(metrics: Metrics) -> dict[str, float]:
    """How many errors there were of each kind."""
    seen = read(metrics)
    kinds = ("connection_lost", "race", "timeout", "read_only", "full", "constraint", "other")
    counts = {kind: seen.values("shop_database_errors_total", pool="test", error=kind) for kind in kinds}
    assert all(len(each) == 1 for each in counts.values()), "each kind begins at 0"
    return {kind: count for kind, (count,) in counts.items() if count}


async def test_service_exports_its_pools(product_database: str) -> None:
    (port,) = free_ports(1)
    async with product_shop(product_database, METRICS_PORT=str(port)) as shop:
        product = await shop.create(stock=10)
        await shop.reserve({product.id: 3})

        async def is_seen() -> Scrape:
            seen = await scrape(port)
            assert seen.values("shop_database_up", pool="product") == [1]
            return seen

        seen = await eventually(is_seen)
    assert seen.value("shop_database_statements_total", pool="product stock", statement="stock.reserve") == 1
    assert 0 < seen.value("shop_database_statement_time_seconds_total", pool="product stock") < 3
    assert seen.value("shop_database_errors_total") == 0
    assert seen.value("db_client_connection_timeouts_total") == 0
    assert seen.value("shop_server_ready") == 1


async def test_full_pool_shows_waits_and_refusals(database: Database, metrics: Metrics) -> None:
    before = read(metrics)
    assert before.values("db_client_connection_max", **POOL) == [1]
    assert before.value("db_client_connection_count", db_client_connection_state="idle", **POOL) == 1
    sleep = asyncio.create_task(database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.5)", {}, Number))
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(one(database))
    await asyncio.sleep(0.1)
    with pytest.raises(ApiError, match="queue is full"):
        await one(database)
    full = read(metrics)
    assert full.value("db_client_connection_count", db_client_connection_state="idle", **POOL) == 0
    assert full.value("db_client_connection_count", db_client_connection_state="used", **POOL) == 1
    assert full.value("db_client_connection_pending_requests", **POOL) == 1
    assert full.value("db_client_connection_timeouts_total", **POOL) == 1
    await asyncio.gather(sleep, waiting)
    after = read(metrics)
    assert after.value("db_client_connection_count", db_client_connection_state="used", **POOL) == 0
    assert after.value("db_client_connection_pending_requests", **POOL) == 0
    waits = "db_client_connection_wait_time_seconds"
    assert after.value(f"{waits}_count", **POOL) - before.value(f"{waits}_count", **POOL) == 1
    assert 0.2 < after.value(f"{waits}_sum", **POOL) - before.value(f"{waits}_sum", **POOL) < 2
    assert after.value("shop_database_statements_total", statement="sleep") == 1
    assert 0.5 <= after.value("shop_database_statement_time_seconds_total", statement="sleep") < 2
    # The wait is not a part of it.
    assert after.value("shop_database_statement_time_seconds_total", statement="one") < 0.3


async def test_calls_that_wait_too_long_are_counted(database: Database, metrics: Metrics) -> None:
    sleep = asyncio.create_task(database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.6)", {}, Number))
    await asyncio.sleep(0.1)
    with pytest.raises(ApiError):
        await database.pool.acquire(0.1)
    assert read(metrics).value("db_client_connection_timeouts_total", **POOL) == 1
    await sleep


async def test_lost_connection_is_counted(database: Database, metrics: Metrics, empty_database: str) -> None:
    name = conninfo_to_dict(empty_database)["dbname"]
    await execute(
        empty_database,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()",
    )
    await one(database)
    assert errors(metrics) == {"connection_lost": 1}
    # The attempt that failed counts as well.
    assert read(metrics).value("shop_database_statements_total", statement="one") == 3


@pytest.mark.parametrize(
    ("state", "kind"),
    [("57014", "timeout"), ("25P04", "timeout"), ("53100", "full"), ("54000", "other"), ("23514", "constraint")],
)
async def test_errors_are_counted_by_kind(
    database: Database, metrics: Metrics, state: LiteralString, kind: str
) -> None:
    assert errors(metrics) == {}
    await raise_state(database, state)
    assert errors(metrics) == {kind: 1}


async def test_each_lost_race_is_counted(database: Database, metrics: Metrics) -> None:
    await raise_state(database, "40001")
    counts = errors(metrics)
    assert counts.pop("race") > 3
    assert counts == {}


async def test_database_that_goes_away_is_down(
    database: Database, metrics: Metrics, postgres: DatabaseServer, empty_database: str
) -> None:
    assert read(metrics).values("shop_database_up") == [], "nobody has checked yet"
    await execute(empty_database, MIGRATED)
    assert await database.check(SCHEMA) == ""
    assert read(metrics).values("shop_database_up", pool="test") == [1]
    name = conninfo_to_dict(empty_database)["dbname"]
    server = postgres.postgres.conninfo("postgres")
    await execute(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await execute(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert "unavailable" in await database.check(SCHEMA)
    with pytest.raises(ApiError):
        await one(database)
    seen = read(metrics)
    assert seen.values("shop_database_up", pool="test") == [0]
    assert seen.value("db_client_connection_timeouts_total", **POOL) >= 1
    await execute(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    async def is_up() -> bool:
        await database.check(SCHEMA)
        return read(metrics).values("shop_database_up", pool="test") == [1]

    await eventually(is_up)


async def test_missing_schema_is_not_a_database_that_is_down(database: Database, metrics: Metrics) -> None:
    assert "the schema is missing" in await database.check(SCHEMA)
    assert read(metrics).values("shop_database_up", pool="test") == [1]


async def test_refused_writes_show_until_writes_work(
    database: Database, metrics: Metrics, postgres: DatabaseServer, empty_database: str
) -> None:
    await execute(empty_database, MIGRATED)
    assert await database.check(SCHEMA) == ""
    assert read(metrics).values("shop_database_writable", pool="test") == [1]
    name = conninfo_to_dict(empty_database)["dbname"]
    await execute(empty_database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database.pool.replace_all(asyncio.get_running_loop().time() + 1)
    await database.pool.wait_until_replaced()
    with pytest.raises(ApiError, match="read-only"):
        await database.execute("write", "CREATE TABLE written ()", {})
    assert await database.check(SCHEMA) == ""
    assert read(metrics).values("shop_database_writable", pool="test") == [0]
    assert read(metrics).values("shop_database_up", pool="test") == [1]
    assert errors(metrics).pop("read_only") >= 1
    server = postgres.postgres.conninfo("postgres")
    await execute(server, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    database.pool.replace_all(asyncio.get_running_loop().time() + 1)
    await database.pool.wait_until_replaced()

    async def is_writable() -> bool:
        await database.check(SCHEMA)
        return read(metrics).values("shop_database_writable", pool="test") == [1]

    await eventually(is_writable)


async def test_read_only_database_shows_without_write_probe(empty_database: str, metrics: Metrics) -> None:
    config = DatabaseConfig(conninfo=empty_database, pool_size=1, pool_waiting=1, timeout=2)
    async with opened(Database(config, "test")) as database:
        measure_databases(metrics, database)
        assert read(metrics).values("shop_database_writable") == []
        await database.check(SCHEMA)
        assert read(metrics).values("shop_database_writable") == [1]
        name = conninfo_to_dict(empty_database)["dbname"]
        await execute(empty_database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        database.pool.replace_all(asyncio.get_running_loop().time() + 1)
        await database.pool.wait_until_replaced()
        await database.check(SCHEMA)
        assert read(metrics).values("shop_database_writable") == [0]
