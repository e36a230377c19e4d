"""Each error of the database has its own status, is logged once, and ends no connection that still works."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psycopg
import pytest
from google.rpc import error_details_pb2
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runtime.config import DatabaseConfig
from runtime.database import Database
from runtime.driver_errors import HINTS
from runtime.errors import ApiError
from tests.support.eventually import eventually

POOL_SIZE = 3

ANSWERS = [
    ("57014", "DEADLINE_EXCEEDED", "database timeout; nothing was written", None),
    ("25P04", "DEADLINE_EXCEEDED", "database timeout; nothing was written", None),
    ("25P03", "UNAVAILABLE", "the database ended the transaction; nothing was written", 1),
    ("55P03", "UNAVAILABLE", "the data is locked by another change; nothing was written", 1),
    ("53000", "RESOURCE_EXHAUSTED", "the database is out of resources; nothing was written", 1),
    ("53100", "RESOURCE_EXHAUSTED", "the database is full; nothing was written", 30),
    ("53200", "RESOURCE_EXHAUSTED", "the database is out of memory; nothing was written", 1),
    ("53300", "RESOURCE_EXHAUSTED", "the database has too many connections; nothing was written", 1),
    ("53400", "RESOURCE_EXHAUSTED", "the database is out of resources; nothing was written", 1),
    ("42P01", "UNAVAILABLE", "the database is not ready", 1),
    ("26000", "UNAVAILABLE", "the database is not ready", 1),
    ("42P05", "UNAVAILABLE", "the database is not ready", 1),
]
"""SQLSTATE, code, text, and the seconds after which a client may retry."""

FAULTS = ["54000", "54001", "54011", "58030", "XX000", "22003"]
"""SQLSTATEs that no retry fixes: INTERNAL, with a traceback in the log."""

LOST = ["08006", "57P01", "57P02", "57P03"]


@dataclass(frozen=True)
class Number:
    n: int


@asynccontextmanager
async def opened(conninfo: str, timeout: float = 2) -> AsyncIterator[Database]:
    config = DatabaseConfig(conninfo=conninfo, pool_size=POOL_SIZE, pool_waiting=5, timeout=timeout)
    database = Database(config, "test")
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def run(conninfo: str, statement: str, parameters: tuple[object, ...] = ()) -> list[Any]:
    """Runs a statement on a connection of its own. Returns its rows."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        cursor = await connection.execute(statement.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []


async def backends(conninfo: str) -> set[int]:
    rows = await run(conninfo, "SELECT pid FROM pg_stat_activity WHERE application_name = 'test'")
    return {row[0] for row in rows}


async def until_full(conninfo: str) -> set[int]:
    """Waits until the pool has all its connections. Returns the process ids of their backends."""

    async def full() -> bool:
        return len(await backends(conninfo)) == POOL_SIZE

    await eventually(full)
    return await backends(conninfo)


@pytest.fixture
async def failing(empty_database: str) -> str:
    """A database with a function `fail(sqlstate)`, and a sequence `tries` that counts its calls."""
    await run(
        empty_database,
        "CREATE SEQUENCE tries; CREATE FUNCTION fail(state text) RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'secret' USING ERRCODE = state; END $$",
    )
    return empty_database


async def tries(conninfo: str) -> int:
    ((count,),) = await run(conninfo, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tries")
    return int(count)


def retry_after(error: ApiError) -> int | None:
    delays = [each.retry_delay.seconds for each in error.details if isinstance(each, error_details_pb2.RetryInfo)]
    return delays[0] if delays else None


async def test_refusal_is_not_retried(
    failing: str, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    async with opened(failing) as database:
        before = await until_full(failing)
        for count, (state, code, text, seconds) in enumerate(ANSWERS, 1):
            caplog.clear()
            with subtests.test(state), caplog.at_level(logging.INFO, "runtime.database"):
                with pytest.raises(ApiError) as caught:
                    await database.fetch("test.fail", "SELECT fail(%(state)s) AS n", {"state": state}, Number)
                assert (caught.value.code.name, caught.value.text) == (code, text)
                assert retry_after(caught.value) == seconds
                (said,) = [each.getMessage() for each in caplog.records if each.name == "runtime.database"]
                hint = f"; {HINTS[state]}" if state in HINTS else ""
                assert said == f"test.fail: {text} (SQLSTATE {state}{hint})"
                assert await tries(failing) == count
                assert await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]
                assert await backends(failing) == before, "no connection was replaced"


async def test_fault_is_raised_as_it_is(failing: str, subtests: pytest.Subtests) -> None:
    async with opened(failing) as database:
        before = await until_full(failing)
        for count, state in enumerate(FAULTS, 1):
            with subtests.test(state):
                with pytest.raises(psycopg.Error) as caught:
                    await database.fetch("fail", "SELECT fail(%(state)s) AS n", {"state": state}, Number)
                assert caught.value.sqlstate == state
                assert await tries(failing) == count
                assert await backends(failing) == before


async def test_lost_connection_is_retried_on_new_ones(failing: str, subtests: pytest.Subtests) -> None:
    async with opened(failing) as database:
        for count, state in enumerate(LOST, 1):
            with subtests.test(state):
                before = await until_full(failing)
                with pytest.raises(ApiError, match="the database is unavailable"):
                    await database.fetch("fail", "SELECT fail(%(state)s) AS n", {"state": state}, Number)
                assert await tries(failing) == 5 * count
                assert not before & await until_full(failing)


async def test_stuck_queue_is_overload(empty_database: str) -> None:
    """The database responds slowly. The edge would retry UNAVAILABLE, and add to the load."""
    async with opened(empty_database, timeout=1) as database:
        await until_full(empty_database)
        sleeps = [database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.7)", {}, Number) for _ in range(2 * POOL_SIZE)]
        busy = [asyncio.create_task(each) for each in sleeps]
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError, match="server overloaded: request queue is full") as caught:
            await database.fetch("one", "SELECT 1 AS n", {}, Number)
        assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        await asyncio.gather(*busy)


async def test_lock_timeout_is_no_lost_connection(empty_database: str) -> None:
    await run(empty_database, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    conninfo = make_conninfo(empty_database, options="-c lock_timeout=100")
    async with opened(conninfo) as database, await psycopg.AsyncConnection.connect(empty_database) as other:
        before = await until_full(empty_database)
        await other.execute("LOCK TABLE t")
        with pytest.raises(ApiError, match="the data is locked by another change"):
            await database.fetch("select", "SELECT n FROM t", {}, Number)
        await other.rollback()
        assert await database.fetch("select", "SELECT n FROM t", {}, Number) == [Number(1)]
        assert await backends(empty_database) == before


async def test_read_only_database_is_reconnected_once(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Providers do that if the disk is nearly full: no other server accepts writes, and reads still work."""
    await run(empty_database, "CREATE TABLE t (n int)")
    name = conninfo_to_dict(empty_database)["dbname"]
    await run(empty_database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with opened(empty_database) as database:
        first = await until_full(empty_database)
        for _ in range(3):
            with pytest.raises(ApiError) as caught:
                await database.fetch("insert", "INSERT INTO t VALUES (1) RETURNING n", {}, Number, idempotent=False)
            assert caught.value.code == grpc.StatusCode.UNAVAILABLE
            assert caught.value.text == "the database is read-only at present; nothing was written"
        second = await until_full(empty_database)
        assert not first & second
        assert await database.fetch("select", "SELECT n FROM t", {}, Number) == []
        assert await backends(empty_database) == second, "the second and the third call replaced no connection"
    assert [each.getMessage() for each in caplog.records if "reconnecting" in each.getMessage()] == [
        "the database server accepts no writes: reconnecting"
    ]


async def test_all_calls_leave_a_standby(empty_database: str) -> None:
    """That includes calls that meet the standby while another call replaces the connections."""
    await run(empty_database, "CREATE TABLE t (n int)")
    async with opened(empty_database) as database:
        await until_full(empty_database)
        turn = "SELECT 1 AS n FROM pg_sleep(0.1), set_config('default_transaction_read_only', 'on', false)"
        await asyncio.gather(*(database.fetch("turn", turn, {}, Number) for _ in range(POOL_SIZE)))
        statement = "INSERT INTO t VALUES (1) RETURNING n"
        calls = (database.fetch("insert", statement, {}, Number, idempotent=False) for _ in range(POOL_SIZE))
        assert await asyncio.gather(*calls) == [[Number(1)]] * POOL_SIZE
