"""What the database layer promises: bounded waits, errors without the driver's words, and recovery by itself."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runtime import pool
from runtime.config import DatabaseConfig
from runtime.database import CANCEL_DELAY, MAX_CONNECTION_RETRIES, ConstraintViolation, Database
from runtime.errors import ApiError
from runtime.migrate import migrate
from runtime.pool import RECONNECT_TIMEOUT
from runtime.schema import MigrationError, Schema, migrations
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.proxy import Proxy

SCHEMA = Schema(["0001_step"])


@dataclass(frozen=True)
class Number:
    n: int


@dataclass(frozen=True)
class Setting:
    set_config: str


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Database]:
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(empty_database: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=2, timeout=2)
    async with opened(Database(config, "test")) as database:
        yield database


async def execute(conninfo: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute(statement.encode())


async def test_rows_come_as_dataclasses(database: Database) -> None:
    rows = await database.fetch("count", "SELECT n FROM generate_series(1, %(most)s) AS n", {"most": 3}, Number)
    assert rows == [Number(1), Number(2), Number(3)]


async def test_columns_have_to_be_the_fields(database: Database) -> None:
    for query in ("SELECT 1 AS n, 2 AS m", "SELECT 1 AS m"):
        with pytest.raises(TypeError, match="Number has other fields than"):
            await database.fetch("other", query, {}, Number)


async def test_connections_are_replaced_after_their_lifetime(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the driver's pool does, when it sees one."""
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

        async def replaced() -> bool:
            return not first & await backends()

        await eventually(replaced, 5)


async def test_a_constraint_is_known_by_its_name(database: Database, empty_database: str) -> None:
    await execute(empty_database, "CREATE TABLE t (n int CONSTRAINT positive CHECK (n > 0))")
    with pytest.raises(ConstraintViolation, match="positive"):
        await database.fetch("insert", "INSERT INTO t VALUES (-1) RETURNING n", {}, Number)


async def test_calls_beyond_the_queue_are_refused_at_once(database: Database) -> None:
    """Two run, two wait, and of six the others are told to come back."""

    def calls(number: int) -> list[Coroutine[Any, Any, list[Number]]]:
        return [database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.3)", {}, Number) for _ in range(number)]

    await asyncio.gather(*calls(2))  # both connections are there
    answers = await asyncio.gather(*calls(6), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, ApiError)]
    assert [each.code for each in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert answers.count([Number(1)]) == 4


async def test_a_statement_that_takes_too_long_is_ended_by_the_database(database: Database) -> None:
    with pytest.raises(ApiError) as caught:
        await database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(30)", {}, Number)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "pg_sleep" not in caught.value.text


async def test_a_cancelled_call_ends_its_statement_and_frees_its_connection(
    database: Database, empty_database: str
) -> None:
    for _ in range(4):
        call = asyncio.create_task(database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.9)", {}, Number))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:

        async def quiet() -> bool:
            rows = await connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'test' AND state = 'active'"
            )
            return await rows.fetchall() == []

        await eventually(quiet, CANCEL_DELAY + 0.3)


async def test_calls_that_are_cancelled_at_any_moment_lose_no_connection(database: Database) -> None:
    """In the queue, in the statement, and while the connection is given back: the pool stays as large as it was."""
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
    assert asyncio.get_running_loop().time() - began < 0.9, "side by side"


async def test_a_write_whose_caller_leaves_ends_by_itself_if_it_is_quick(
    database: Database, empty_database: str
) -> None:
    await execute(empty_database, "CREATE TABLE t (n int)")
    write = "INSERT INTO t SELECT 1 FROM pg_sleep(%(seconds)s) RETURNING n"
    for seconds in (0.1, 1.5):
        call = asyncio.create_task(database.fetch("insert", write, {"seconds": seconds}, Number))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await asyncio.sleep(1.6)
    assert await database.fetch("all", "SELECT n FROM t", {}, Number) == [Number(1)], "the quick one, and not the slow"


async def test_lost_connections_are_replaced_without_a_failed_call(database: Database, empty_database: str) -> None:
    await database.fetch("one", "SELECT 1 AS n", {}, Number)
    await execute(
        empty_database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
    )
    for _ in range(5):
        assert await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]


async def test_full_pool_of_dead_connections_fails_no_call(empty_database: str) -> None:
    """They are replaced all together: one after the other, they would outlast the attempts of a call."""
    size = MAX_CONNECTION_RETRIES + 2
    config = DatabaseConfig(conninfo=empty_database, pool_size=size, pool_waiting=2, timeout=5)
    async with opened(Database(config, "test")) as database:
        sleep = "SELECT pg_backend_pid() AS n FROM pg_sleep(0.3)"
        used = await asyncio.gather(*(database.fetch("sleep", sleep, {}, Number) for _ in range(size)))
        assert len({each.n for (each,) in used}) == size, "all are there"
        await execute(
            empty_database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
        )
        assert await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]


async def test_a_database_that_was_away_is_found_again_however_many_have_called_meanwhile(
    postgres: DatabaseServer, empty_database: str
) -> None:
    """Those who have given up take no place in the queue from those who come later."""
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=5, timeout=0.5)
    async with opened(Database(config, "test")) as database:

        async def call() -> list[Number] | None:
            try:
                return await database.fetch("one", "SELECT 1 AS n", {}, Number)
            except ApiError:
                return None

        async def found() -> bool:
            return await call() == [Number(1)]

        await eventually(found)
        with postgres.shut(empty_database):
            until = asyncio.get_running_loop().time() + RECONNECT_TIMEOUT + 1
            while asyncio.get_running_loop().time() < until:
                assert await asyncio.gather(*(call() for _ in range(20))) == [None] * 20
        await eventually(found, 5)


async def test_a_connection_that_is_half_open_is_cut(empty_database: str) -> None:
    """Nothing comes back on it, and no caller gives up: without the cut, its statement would wait for ever."""
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
                    with suppress(ApiError):  # it may have met the other one
                        return await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]
                    return False

                await eventually(works, 15)


async def test_a_write_that_must_not_run_twice_is_not_repeated(database: Database, empty_database: str) -> None:
    await database.fetch("one", "SELECT 1 AS n", {}, Number)
    await execute(
        empty_database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
    )
    with pytest.raises(ApiError) as caught:
        await database.fetch("one", "SELECT 1 AS n", {}, Number, idempotent=False)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE


async def test_a_deadlock_is_retried_and_never_reaches_the_caller(database: Database, empty_database: str) -> None:
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


async def test_serialization_failures_are_retried_for_as_long_as_the_call_has_time(empty_database: str) -> None:
    """Eight writers of one row, of whom at each commit all others lose: more often than a connection may be lost."""
    await execute(empty_database, "CREATE TABLE t (n int); INSERT INTO t VALUES (0)")
    conninfo = make_conninfo(empty_database, options="-c default_transaction_isolation=serializable")
    config = DatabaseConfig(conninfo=conninfo, pool_size=8, pool_waiting=8, timeout=5)
    async with opened(Database(config, "test")) as database:
        statement = "UPDATE t SET n = n + 1 FROM pg_sleep(0.02) RETURNING n"
        await asyncio.gather(*(database.fetch("add", statement, {}, Number) for _ in range(8)))
        assert await database.fetch("sum", "SELECT n FROM t", {}, Number) == [Number(8)]


async def test_a_database_without_a_schema_is_a_problem_in_one_line(database: Database) -> None:
    assert await database.check(SCHEMA) == "the schema is missing; version 1 is needed"


async def test_overload_is_no_problem_of_the_database(database: Database, empty_database: str) -> None:
    """A replica that is only busy stays ready: its share would fall upon the others."""
    await execute(
        empty_database,
        "CREATE TABLE schema_migration (version int, name text); INSERT INTO schema_migration VALUES (1, '0001_step')",
    )
    assert await database.check(SCHEMA) == ""
    sleeps = [database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(0.8)", {}, Number) for _ in range(4)]
    busy = [asyncio.create_task(each) for each in sleeps]
    await asyncio.sleep(0.1)
    with pytest.raises(ApiError):
        await database.fetch("one", "SELECT 1 AS n", {}, Number)
    assert await database.check(SCHEMA) == ""
    await asyncio.gather(*busy)


async def test_busy_pool_of_a_server_without_free_slots_is_no_outage(
    database: Database, postgres: DatabaseServer, empty_database: str
) -> None:
    """The look at the database has no connection of the pool then, and gets none of its own either."""
    await execute(
        empty_database,
        "CREATE TABLE schema_migration (version int, name text); INSERT INTO schema_migration VALUES (1, '0001_step')",
    )
    assert await database.check(SCHEMA) == ""
    busy = [
        asyncio.create_task(database.fetch("sleep", "SELECT 1 AS n FROM pg_sleep(1.2)", {}, Number)) for _ in range(4)
    ]
    await asyncio.sleep(0.2)
    name = conninfo_to_dict(empty_database)["dbname"]
    await execute(postgres.postgres.conninfo("postgres"), f'ALTER DATABASE "{name}" CONNECTION LIMIT 2')
    assert await database.check(SCHEMA) == ""
    await asyncio.gather(*busy)


async def test_a_database_that_is_away_is_a_problem_that_says_where() -> None:
    config = DatabaseConfig(conninfo="host=127.0.0.1 port=1 user=x", pool_size=1, pool_waiting=1, timeout=0.5)
    database = Database(config, "test")
    await database.open()
    problem = await database.check(SCHEMA)
    assert problem.startswith("the database is unavailable: ")
    assert "127.0.0.1" in problem
    assert "\n" not in problem
    await database.close()


async def test_a_call_waits_less_for_a_database_that_is_known_to_be_away(
    postgres: DatabaseServer, empty_database: str
) -> None:
    """Whoever tries again, and the edge does, would have waited its whole time thrice."""
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=2, timeout=30)
    with ExitStack() as away:
        away.enter_context(postgres.shut(empty_database))
        async with opened(Database(config, "test")) as database:
            await database.check_admission()  # nothing is known yet
            assert "not currently accepting connections" in await database.check(SCHEMA)
            for call in (database.fetch("one", "SELECT 1 AS n", {}, Number), database.check_admission()):
                async with asyncio.timeout(10):
                    with pytest.raises(ApiError, match="the database is unavailable"):
                        await call
            away.close()

            async def back() -> bool:
                return await database.check(SCHEMA) == "the schema is missing; version 1 is needed"

            await eventually(back)  # the pool's own attempts are seconds apart
            await database.check_admission()


async def test_a_host_of_the_environment_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod has it, whose variables come from a Secret."""
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    database = Database(DatabaseConfig(conninfo="", pool_size=1, pool_waiting=1, timeout=2), "test")
    await database.open()
    assert "'nowhere.invalid'" in await database.check(SCHEMA)
    await database.close()


def write(directory: Path, *files: str) -> Path:
    for number, text in enumerate(files, 1):
        (directory / f"{number:04}_step.sql").write_text(text)
    return directory


async def test_migrations_are_applied_once_and_in_order(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "CREATE TABLE t (n int);", "ALTER TABLE t ADD m int; INSERT INTO t VALUES (1, 2);")
    assert await migrate(empty_database, tmp_path) == [1, 2]
    assert await migrate(empty_database, tmp_path) == []


async def test_parallel_migrations_wait_for_each_other(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "SELECT pg_sleep(0.2); CREATE TABLE t (n int);")
    assert sorted(await asyncio.gather(*(migrate(empty_database, tmp_path) for _ in range(4)))) == [[], [], [], [1]]


async def test_an_older_program_leaves_a_newer_schema_alone(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "CREATE TABLE t (n int);", "CREATE TABLE u (n int);")
    await migrate(empty_database, tmp_path)
    (tmp_path / "0002_step.sql").unlink()
    assert await migrate(empty_database, tmp_path) == []


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "CREATE TABLE t (n int);", "CREATE TABLE u (n int); SELECT 1/0;")
    with pytest.raises(MigrationError, match=r"^migration 0002_step: division by zero$"):
        await migrate(empty_database, tmp_path)
    write(tmp_path, "CREATE TABLE t (n int);", "CREATE TABLE u (n int);")
    assert await migrate(empty_database, tmp_path) == [2]


async def test_a_database_that_never_comes_is_one_clear_error(tmp_path: Path) -> None:
    write(tmp_path, "SELECT 1;")
    with pytest.raises(MigrationError, match="the database is unavailable"):
        await migrate("host=127.0.0.1 port=1 user=x", tmp_path, wait=0.2)


def test_files_must_be_numbered_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0002_step.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="without a gap"):
        migrations(tmp_path)
    write(tmp_path, "SELECT 1;")
    assert Schema.load(tmp_path).version == 2
    (tmp_path / "later.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=r"later\.sql"):
        migrations(tmp_path)


async def test_a_server_that_became_a_standby_is_left_for_the_new_primary(
    database: Database, empty_database: str
) -> None:
    """A failover: the old primary's connections still answer, but only to reads."""
    await execute(empty_database, "CREATE TABLE t (n int)")
    await database.fetch("read only", "SELECT set_config('default_transaction_read_only', 'on', false)", {}, Setting)
    statement = "INSERT INTO t VALUES (1) RETURNING n"
    assert await database.fetch("insert", statement, {}, Number, idempotent=True) == [Number(1)]


async def test_a_call_before_the_schema_is_there_is_told_to_come_back(database: Database) -> None:
    with pytest.raises(ApiError) as caught:
        await database.fetch("select", "SELECT n FROM not_yet", {}, Number)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert "not_yet" not in caught.value.text
