"""The readiness check of a database: what counts as a problem, and what it says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from psycopg.conninfo import conninfo_to_dict

from runtime.config import DatabaseConfig
from runtime.database import Database
from runtime.errors import ApiError
from runtime.schema import Schema
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.runtime_database import Number, execute, opened

SCHEMA = Schema(["0001_step"])


@pytest.fixture
async def database(empty_database: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=2, timeout=2)
    async with opened(Database(config, "test")) as database:
        yield database


async def has_problem(database: Database, problem: str) -> bool:
    return await database.check(SCHEMA) == problem


async def test_missing_schema_is_a_problem(database: Database) -> None:
    assert await database.check(SCHEMA) == "the schema is missing; version 1 is needed"


async def test_overload_is_no_problem(database: Database, empty_database: str) -> None:
    """A replica that is only busy stays ready. Otherwise the others would get its load as well."""
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


async def test_busy_pool_without_a_free_slot_is_no_outage(
    database: Database, postgres: DatabaseServer, empty_database: str
) -> None:
    """The check then gets no connection of the pool, and cannot open one of its own."""
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


async def test_unavailable_database_is_named_in_one_line() -> None:
    config = DatabaseConfig(conninfo="host=127.0.0.1 port=1 user=x", pool_size=1, pool_waiting=1, timeout=0.5)
    database = Database(config, "test")
    await database.open()
    problem = await database.check(SCHEMA)
    assert problem.startswith("the database is unavailable: ")
    assert "127.0.0.1" in problem
    assert "\n" not in problem
    await database.close()


async def test_server_is_checked_past_a_pooler_that_is_gone(empty_database: str) -> None:
    """The tailer has a direct connection, and must leave a primary that was replaced even then."""
    pooler = "host=127.0.0.1 port=1"
    config = DatabaseConfig(conninfo=empty_database, pooler=pooler, pool_size=1, pool_waiting=1, timeout=0.5)
    servers: list[str] = []
    async with opened(Database(config, "test")) as database:
        database.readiness.on_server_check.append(servers.append)
        for _ in range(2):
            assert (await database.check(SCHEMA)).startswith("the database is unavailable: ")
        assert servers == [database.pool.server], "once in 10 seconds"


async def test_calls_wait_less_during_a_known_outage(postgres: DatabaseServer, empty_database: str) -> None:
    """With the full timeout, a client whose calls the edge retries would wait three times as long."""
    config = DatabaseConfig(conninfo=empty_database, pool_size=2, pool_waiting=2, timeout=30)
    with ExitStack() as outage:
        outage.enter_context(postgres.shut(empty_database))
        async with opened(Database(config, "test")) as database:
            await database.check_admission()  # the outage is not known yet
            assert "not currently accepting connections" in await database.check(SCHEMA)
            for call in (database.fetch("one", "SELECT 1 AS n", {}, Number), database.check_admission()):
                async with asyncio.timeout(10):
                    with pytest.raises(ApiError, match="the database is unavailable"):
                        await call
            outage.close()

            # The pool's own attempts are seconds apart.
            await eventually(lambda: has_problem(database, "the schema is missing; version 1 is needed"))
            await database.check_admission()


async def test_host_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod may get it from a Secret."""
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    database = Database(DatabaseConfig(conninfo="", pool_size=1, pool_waiting=1, timeout=2), "test")
    await database.open()
    assert "'nowhere.invalid'" in await database.check(SCHEMA)
    await database.close()
