"""The guarantees of the database layer: bounded waits, errors without text of the driver, automatic recovery."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runtime import pool
from runtime.config import DatabaseConfig
from runtime.database import CANCEL_DELAY, MAX_CONNECTION_RETRIES, ConstraintViolation, Database
from runtime.errors import ApiError
from runtime.pool import RECONNECT_TIMEOUT
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.runtime_database import Number, execute, opened


@dataclass(frozen=True)
class Setting:
    set_config: str


@pytest.fixture
async def database(empty_database: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=2, timeout=2)
    async with opened(Database(config, "test")) as database:
        yield database


async def test_rows_come_as_dataclasses(database: Database) -> None:
    rows = await database.fetch("count", "SELECT n FROM generate_series(1, %(most)s) AS n", {"most": 3}, Number)
    assert rows == [Number(1), Number(2), Number(3)]


async def test_columns_must_match_the_fields(database: Database) -> None:
    for query in ("SELECT 1 AS n, 2 AS m", "SELECT 1 AS m"):
        with pytest.raises(TypeError, match="Number has other fields than"):
            await database.fetch("other", query, {}, Number)


async def test_connections_are_replaced_after_their_lifetime(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's pool replaces a connection when it gets it back."""
    monkeypatch.setattr(pool, "RECYCLE_INTERVAL", 0.1)
    monkeypatch.setattr(pool, "MAX_CONNECTION_LIFETIME", 0.5)
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=2, timeout=2)
    async with opened(Database(config, "test")) as database:

        async def backends() -> set[int]:
            pid = "SELECT pg_backend_pid() AS n FROM pg_sleep(0.05)"
            rows = await asyncio.gather(*(database.fetch("pid", pid, {}, Number) for _ in range(2)))
            return {each.n for (each,) in rows}

        first = await backends()
        assert await backends() == first

        async def are_replaced() -> bool:
            return not first & await backends()

        await eventually(are_replaced, 5)


async def test_violated_constraint_is_named(database: Database, empty_database: str) -> None:
    await execute(empty_database, "CREATE TABLE t (n int CONSTRAINT positive CHECK (n > 0))")
    with pytest.raises(ConstraintViolation, match="positive"):
        await database.fetch("insert", "INSERT INTO t VALUES (-1) RETURNING n", {}, Number)


async def test_calls_beyond_the_queue_are_refused_at_once(database: Database) -> None:
    """Of six calls, two run, two wait and two are refused."""

    def calls(number: int) -> list[Coroutine[Any, Any, list[Number]]]:
        return [database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.3)", {}, Number) for _ in range(number)]

    await asyncio.gather(*calls(2))  # both connections are open
    answers = await asyncio.gather(*calls(6), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, ApiError)]
    assert [each.code for each in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert answers.count([Number(1)]) == 4


async def test_slow_statement_is_ended_by_the_database(database: Database) -> None:
    with pytest.raises(ApiError) as caught:
        await database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(30)", {}, Number)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "pg_sleep" not in caught.value.text


async def test_cancelled_call_ends_its_statement(database: Database, empty_database: str) -> None:
    for _ in range(4):
        call = asyncio.create_task(database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.9)", {}, Number))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:

        async def is_idle() -> bool:
            rows = await connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'test' AND state = 'active'"
            )
            return await rows.fetchall() == []

        await eventually(is_idle, CANCEL_DELAY + 0.3)


async def test_cancelled_calls_lose_no_connection(database: Database) -> None:
    """They are cancelled in the queue, in the statement and while the connection is released."""
    dice = random.Random(5)
    for _ in range(100):
        calls = [
            asyncio.create_task(database.fetch("one", "SELECT 1 AS n FROM pg_sleep(0.001)", {}, Number))
            for _ in range(4)
        ]
        for call in calls:
            asyncio.get_running_loop().call_later(dice.uniform(0, 0.008), call.cancel)
        await asyncio.gather(*calls, return_exceptions=True)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.5)", {}, Number) for _ in range(2)))
    assert asyncio.get_running_loop().time() - began < 0.9, "both connections are left"


async def test_quick_write_of_a_cancelled_call_completes(database: Database, empty_database: str) -> None:
    await execute(empty_database, "CREATE TABLE t (n int)")
    write = "INSERT INTO t SELECT 1 FROM pg_sleep(%(seconds)s) RETURNING n"
    for seconds in (0.1, 1.5):
        call = asyncio.create_task(database.fetch("insert", write, {"seconds": seconds}, Number))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await asyncio.sleep(1.6)
    assert await database.fetch("all", "SELECT n FROM t", {}, Number) == [Number(1)], "only the quick one"


async def test_lost_connection_fails_no_call(database: Database, empty_database: str) -> None:
    await database.fetch("one", "SELECT 1 AS n", {}, Number)
    await execute(
        empty_database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
    )
    for _ in range(5):
        assert await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]


async def test_full_pool_of_dead_connections_fails_no_call(empty_database: str) -> None:
    """All are replaced at once. Replaced one by one, they would outnumber the retries of a call."""
    size = MAX_CONNECTION_RETRIES + 2
    config = DatabaseConfig(conninfo=empty_database, pool_size=size, pool_waiting=2, timeout=5)
    async with opened(Database(config, "test")) as database:
        sleep = "SELECT pg_backend_pid() AS n FROM pg_sleep(0.3)"
        used = await asyncio.gather(*(database.fetch("sleep", sleep, {}, Number) for _ in range(size)))
        assert len({each.n for (each,) in used}) == size, "all connections are open"
        await execute(
            empty_database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
        )
        assert await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]


async def test_pool_recovers_from_an_outage_under_load(postgres: DatabaseServer, empty_database: str) -> None:
    """Calls that have timed out leave the queue, so later calls find a place in it."""
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=5, timeout=0.5)
    async with opened(Database(config, "test")) as database:

        async def call() -> list[Number] | None:
            try:
                return await database.fetch("one", "SELECT 1 AS n", {}, Number)
            except ApiError:
                return None

        async def succeeds() -> bool:
            return await call() == [Number(1)]

        await eventually(succeeds)
        with postgres.shut(empty_database):
            until = asyncio.get_running_loop().time() + RECONNECT_TIMEOUT + 1
            while asyncio.get_running_loop().time() < until:
                assert await asyncio.gather(*(call() for _ in range(20))) == [None] * 20
        await eventually(succeeds, 5)


async def test_half_open_connection_is_cut(empty_database: str) -> None:
    """It brings no response and no error. Without the cut, a statement on it would wait forever."""
    async with Proxy(int(str(conninfo_to_dict(empty_database)["port"]))).running() as proxy:
        conninfo = make_conninfo(empty_database, port=proxy.port)
        config = DatabaseConfig(conninfo=conninfo, pool_size=2, pool_waiting=2, timeout=1)
        async with opened(Database(config, "test")) as database:
            await asyncio.gather(*(database.fetch("one", "SELECT 1 AS n", {}, Number) for _ in range(2)))
            assert proxy.hang() == 2
            async with asyncio.timeout(20):
                with pytest.raises(ApiError):
                    await database.fetch("one", "SELECT 1 AS n", {}, Number)

                async def works() -> bool:
                    with suppress(ApiError):  # it may have used the other half-open connection
                        return await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]
                    return False

                await eventually(works, 15)


async def test_non_idempotent_write_is_not_repeated(database: Database, empty_database: str) -> None:
    await database.fetch("one", "SELECT 1 AS n", {}, Number)
    await execute(
        empty_database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
    )
    with pytest.raises(ApiError) as caught:
        await database.fetch("one", "SELECT 1 AS n", {}, Number, idempotent=False)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE


async def test_deadlock_is_retried(database: Database, empty_database: str) -> None:
    await execute(empty_database, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0), (2, 0)")
    statement = (
        "WITH a AS (UPDATE t SET n = n + 1 WHERE id = %(first)s RETURNING pg_sleep(0.2)), s AS (SELECT count(*) FROM a)"
        " UPDATE t SET n = t.n + 1 FROM s WHERE id = %(second)s RETURNING n"
    )
    await asyncio.gather(
        database.fetch("there", statement, {"first": 1, "second": 2}, Number),
        database.fetch("back", statement, {"first": 2, "second": 1}, Number),
    )
    assert await database.fetch("sum", "SELECT n FROM t ORDER BY id", {}, Number) == [Number(2), Number(2)]


async def test_serialization_failure_is_retried_while_there_is_time(empty_database: str) -> None:
    """Of eight writers of one row, all but one lose at each commit: more often than a lost connection is retried."""
    await execute(empty_database, "CREATE TABLE t (n int); INSERT INTO t VALUES (0)")
    conninfo = make_conninfo(empty_database, options="-c default_transaction_isolation=serializable")
    config = DatabaseConfig(conninfo=conninfo, pool_size=8, pool_waiting=8, timeout=5)
    async with opened(Database(config, "test")) as database:
        statement = "UPDATE t SET n = n + 1 FROM pg_sleep(0.02) RETURNING n"
        await asyncio.gather(*(database.fetch("add", statement, {}, Number) for _ in range(8)))
        assert await database.fetch("sum", "SELECT n FROM t", {}, Number) == [Number(8)]


async def test_call_leaves_a_standby_for_the_new_primary(database: Database, empty_database: str) -> None:
    """After a failover, connections to the old primary still work, but only for reads."""
    await execute(empty_database, "CREATE TABLE t (n int)")
    await database.fetch("read only", "SELECT set_config('default_transaction_read_only', 'on', false)", {}, Setting)
    statement = "INSERT INTO t VALUES (1) RETURNING n"
    assert await database.fetch("insert", statement, {}, Number, idempotent=True) == [Number(1)]


async def test_call_before_the_migration_is_unavailable(database: Database) -> None:
    with pytest.raises(ApiError) as caught:
        await database.fetch("select", "SELECT n FROM not_yet", {}, Number)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert "not_yet" not in caught.value.text
