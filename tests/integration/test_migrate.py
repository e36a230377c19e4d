"""Migrations on a database that is in use, that is another's, or that cannot take them."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from runtime.config import DatabaseConfig
from runtime.database import Database
from runtime.migrate import migrate
from runtime.schema import MigrationError, Schema, migrations
from tests.support.database import REPOSITORY, DatabaseServer
from tests.support.eventually import eventually

PRODUCT, ORDER = (REPOSITORY / service / "migrations" for service in ("product", "order"))

LOCK_TIMEOUT = 0.5

SLACK = 1.0
"""Seconds that a call may take beyond the time for which a migration blocks it, on a machine that is busy."""

ROWS = (
    "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL); INSERT INTO t SELECT i, i FROM generate_series(1, {}) i;"
)

INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"

INDEX = """-- migrate: no transaction
-- A comment; with a semicolon.
CREATE INDEX CONCURRENTLY IF NOT EXISTS t_n ON t (n);
DROP INDEX CONCURRENTLY IF EXISTS t_old;
"""


def write(directory: Path, *files: str) -> Path:
    for number, text in enumerate(files, 1):
        (directory / f"{number:04}_step.sql").write_text(text)
    return directory


async def run(conninfo: str, statement: str, *params: object) -> list[tuple[object, ...]]:
    async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
        cursor = await connection.execute(statement.encode(), params)
        return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def long_reader(conninfo: str) -> AsyncIterator[None]:
    """A report, or a dump: it has read a table and is not at its end."""
    async with await AsyncConnection.connect(conninfo, application_name="report") as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT count(*) FROM t")
        yield
        await connection.rollback()


@asynccontextmanager
async def traffic(conninfo: str) -> AsyncIterator[list[float]]:
    """Reads and writes, one after the other, during the block; how many seconds each took."""
    times: list[float] = []
    over = asyncio.Event()

    async def call(statement: str) -> None:
        async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
            while not over.is_set():
                began = time.monotonic()
                await connection.execute(statement.encode())
                times.append(time.monotonic() - began)
                await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:
        group.create_task(call("SELECT n FROM t WHERE id = 7"))
        group.create_task(call("UPDATE t SET n = n + 1 WHERE id = 8"))
        try:
            yield times
        finally:
            over.set()


@pytest.mark.parametrize(
    ("rows", "step"),
    [
        (300_000, "ALTER TABLE t ADD COLUMN added text NOT NULL DEFAULT '';"),
        (300_000, INDEX),
        (1_000, "-- migrate: no transaction\nALTER TABLE t ADD CONSTRAINT t_check CHECK (n > 0) NOT VALID;"),
    ],
    ids=["column", "index", "constraint"],
)
async def test_migration_delays_no_call(
    empty_database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: int, step: str
) -> None:
    """Neither while it waits for a long reader, nor while it runs."""
    caplog.set_level(logging.INFO)
    await migrate(empty_database, write(tmp_path, ROWS.format(rows)))
    write(tmp_path, ROWS.format(rows), step)
    # An index waits for as long as the reader reads, anything else gives up and comes again.
    waits, times_said = ("waits for locks", 1) if "CONCURRENTLY" in step else ("did not get its locks", 2)

    async def waiting() -> bool:
        return caplog.text.count(waits) >= times_said

    async with traffic(empty_database) as times:
        async with long_reader(empty_database):
            task = asyncio.create_task(migrate(empty_database, tmp_path, lock_timeout=LOCK_TIMEOUT))
            await eventually(waiting)
            assert not task.done()
        assert await task == [2]
    assert "migration 0002_step waits for locks that others hold: session" in caplog.text
    assert "(report, user product)" in caplog.text
    assert len(times) > 20
    assert max(times) < LOCK_TIMEOUT + SLACK
    assert await run(empty_database, INVALID) == []


async def test_lock_never_released_is_one_clear_error(empty_database: str, tmp_path: Path) -> None:
    await migrate(empty_database, write(tmp_path, ROWS.format(1)))
    write(tmp_path, ROWS.format(1), "ALTER TABLE t ADD COLUMN added int;")
    async with long_reader(empty_database):
        with pytest.raises(MigrationError, match=r"^migration 0002_step did not get its locks within 1 s: [^\n]+$"):
            await migrate(empty_database, tmp_path, lock_timeout=0.1, max_wait=1)


async def test_endless_other_migration_is_one_clear_error(empty_database: str, tmp_path: Path) -> None:
    async with await AsyncConnection.connect(empty_database, autocommit=True) as other:
        await other.execute("SELECT pg_advisory_lock(%s)", (0x53484F50,))
        with pytest.raises(MigrationError, match="another migration has run for more than"):
            await migrate(empty_database, write(tmp_path, "SELECT 1;"), max_wait=0.3)


async def test_settings_of_the_role_do_not_end_a_migration(empty_database: str, tmp_path: Path) -> None:
    conninfo = make_conninfo(empty_database, options="-c statement_timeout=50 -c transaction_timeout=50")
    assert await migrate(conninfo, write(tmp_path, "SELECT pg_sleep(0.2);")) == [1]


async def test_index_does_not_wait_for_waiting_migrations(empty_database: str, tmp_path: Path) -> None:
    """A program that waited for its turn within a statement would be one whose end the index waits for."""
    write(tmp_path, ROWS.format(1000), INDEX)
    began = time.monotonic()
    done = await asyncio.gather(*(migrate(empty_database, tmp_path) for _ in range(4)))
    assert sorted(done) == [[], [], [], [1, 2]]
    assert time.monotonic() - began < 5


async def test_index_of_a_failed_attempt_is_rebuilt(empty_database: str, tmp_path: Path) -> None:
    """A duplicate, here, ends the first attempt; as a crash would, it leaves an index that serves no read."""
    rows = "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (1);"
    unique = "-- migrate: no transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_n ON t (n);"
    write(tmp_path, rows, unique)
    with pytest.raises(MigrationError, match=r"^migration 0002_step: could not create unique index \"t_n\"$"):
        await migrate(empty_database, tmp_path)
    assert await run(empty_database, INVALID) == [("t_n",)]
    await run(empty_database, "DELETE FROM t")
    assert await migrate(empty_database, tmp_path) == [2]
    assert await run(empty_database, INVALID) == []
    assert await run(empty_database, "SELECT 1 FROM pg_class WHERE relname = 't_n'") == [(1,)]


async def test_failed_statement_restarts_the_file(empty_database: str, tmp_path: Path) -> None:
    """What was done stays, and the file counts as applied only when all of it is."""
    alone = "-- migrate: no transaction\nCREATE TABLE IF NOT EXISTS u (n int);\n{}"
    write(tmp_path, "CREATE TABLE t (n int);", alone.format("SELECT 1/0;"))
    with pytest.raises(MigrationError, match="division by zero"):
        await migrate(empty_database, tmp_path)
    assert await run(empty_database, "SELECT to_regclass('u')::text") == [("u",)]
    write(tmp_path, "CREATE TABLE t (n int);", alone.format("SELECT 1;"))
    assert await migrate(empty_database, tmp_path) == [2]


async def test_two_services_on_one_database_are_refused(product_database: str) -> None:
    line = (
        "the database belongs to another service: its migration 1 is 0001_product, not 0001_orders; "
        "give each service a database of its own"
    )
    with pytest.raises(MigrationError) as caught:
        await migrate(product_database, ORDER)
    assert str(caught.value) == line
    database = Database(DatabaseConfig(conninfo=product_database, pool_size=1, pool_waiting=1, timeout=2), "test")
    await database.open()
    assert await database.check(Schema.load(ORDER)) == line
    assert await database.check(Schema.load(PRODUCT)) == ""
    await database.close()


async def test_edited_migration_is_refused(empty_database: str, tmp_path: Path) -> None:
    await migrate(empty_database, write(tmp_path, "CREATE TABLE t (n int);"))
    (tmp_path / "0001_step.sql").write_bytes(b"CREATE TABLE t (n int);")
    assert await migrate(empty_database, tmp_path) == []
    write(tmp_path, "CREATE TABLE t (n bigint);", "CREATE TABLE u (n int);")
    with pytest.raises(
        MigrationError, match=r"^0001_step\.sql has changed since it was applied to this database: [^\n]+$"
    ):
        await migrate(empty_database, tmp_path)
    assert await run(empty_database, "SELECT to_regclass('u')::text") == [(None,)], "nothing of the rest was applied"


async def test_line_endings_are_no_edit(empty_database: str, tmp_path: Path) -> None:
    await migrate(empty_database, write(tmp_path, "CREATE TABLE t (n int);\n-- end\n"))
    (tmp_path / "0001_step.sql").write_bytes(b"CREATE TABLE t (n int);\r\n-- end\r\n")
    assert await migrate(empty_database, tmp_path) == []


async def test_record_of_an_older_program_is_completed(empty_database: str, tmp_path: Path) -> None:
    """It has no checksums, and an older program goes on with the table as it is now."""
    await run(
        empty_database,
        "CREATE TABLE schema_migration (version integer PRIMARY KEY, name text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO schema_migration (version, name) VALUES (1, '0001_step'); CREATE TABLE t (n int)",
    )
    write(tmp_path, "CREATE TABLE t (n int);", "CREATE TABLE u (n int);")
    assert await migrate(empty_database, tmp_path) == [2]
    assert await run(empty_database, "SELECT length(checksum) FROM schema_migration") == [(64,), (64,)]
    await run(empty_database, "INSERT INTO schema_migration (version, name) VALUES (3, '0003_step')")
    assert await migrate(empty_database, tmp_path) == []


@contextmanager
def made(postgres: DatabaseServer, options: str, after: str) -> Iterator[str]:
    """A database of the superuser's that the product's role can connect to, for that role. `after` changes it."""
    name = f"test_{uuid4().hex}"
    server = postgres.postgres
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}".encode())
        try:
            with psycopg.connect(server.conninfo(name), autocommit=True) as own:
                own.execute(f"GRANT CONNECT ON DATABASE {name} TO product; {after.format(name)}".encode())
            yield make_conninfo(server.service("product"), dbname=name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


PLAIN = "TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING"


@pytest.mark.parametrize(
    ("options", "after", "line"),
    [
        (f"{PLAIN} 'LATIN1'", "", "the encoding of the database is LATIN1; create it with ENCODING 'UTF8'"),
        (f"{PLAIN} 'SQL_ASCII'", "", "the encoding of the database is SQL_ASCII; create it with ENCODING 'UTF8'"),
        (
            "OWNER product",
            "ALTER DATABASE {} SET default_transaction_read_only = on",
            "cannot execute CREATE TABLE in a read-only transaction",
        ),
        ("", "", "permission denied for schema public"),
        (
            "",
            "GRANT CREATE ON SCHEMA public TO product",
            'migration 0001_product: permission denied to create extension "pg_trgm": '
            "Must have CREATE privilege on current database to create this extension.",
        ),
    ],
    ids=["latin1", "sql_ascii", "read-only", "schema", "extension"],
)
async def test_unsuitable_database_is_one_clear_error(
    postgres: DatabaseServer, options: str, after: str, line: str
) -> None:
    with made(postgres, options, after) as conninfo, pytest.raises(MigrationError) as caught:
        await migrate(conninfo, PRODUCT)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"password": "wrong"}, 'password authentication failed for user "product"'),
        ({"dbname": "nowhere"}, 'permission denied for database|database "nowhere" does not exist'),
    ],
)
async def test_refused_login_is_one_clear_error(empty_database: str, changed: dict[str, str], line: str) -> None:
    with pytest.raises(MigrationError, match=rf"^the database is unavailable: [^\n]*({line})[^\n]*$"):
        await migrate(make_conninfo(empty_database, **changed), PRODUCT, wait=0.1)


async def test_older_server_is_one_clear_error(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.migrate.MIN_POSTGRESQL_VERSION", 99)
    with pytest.raises(MigrationError, match=r"^the database is PostgreSQL \d+; 99 or newer is needed$"):
        await migrate(empty_database, write(tmp_path, "SELECT 1;"))


async def test_command_fails_with_one_line_and_status_1(postgres: DatabaseServer) -> None:
    with made(postgres, "", "") as conninfo:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "product", "migrate"),
            env={**os.environ, "DATABASE_URL": conninfo},
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        _, complaint = await process.communicate()
    assert (process.returncode, complaint.decode()) == (1, "product: permission denied for schema public\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CREATE INDEX CONCURRENTLY t_n ON t (n);", "must be able to run again"),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS ON t (n);", "must be able to run again"),
        ("/* why */ DROP INDEX CONCURRENTLY t_n;", "must be able to run again"),
        ("REINDEX INDEX CONCURRENTLY t_n;", "must be able to run again"),
        ("SELECT 1;\n-- migrate: no transaction\n", "as the first line, or not at all"),
        ("-- migrate: no transactions\n", "as the first line, or not at all"),
    ],
)
def test_statement_that_cannot_rerun_is_refused(tmp_path: Path, text: str, line: str) -> None:
    prefix = "" if "migrate" in text else "-- migrate: no transaction\n"
    with pytest.raises(MigrationError, match=rf"^0001_step\.sql: .*{line}"):
        migrations(write(tmp_path, prefix + text))


def test_file_is_split_into_its_statements(tmp_path: Path) -> None:
    text = """-- migrate: no transaction
    SELECT ';', 'it''s;'; -- no; end
    /* nor; here */ DO $body$ BEGIN PERFORM 1; END $body$;
    SELECT 1 AS "a;b"
    -- nothing;
    ;;
    """
    (migration,) = migrations(write(tmp_path, text))
    assert migration.statements
    assert [each.text.split("\n")[-1].strip() for each in migration.statements] == [
        "SELECT ';', 'it''s;'",
        "/* nor; here */ DO $body$ BEGIN PERFORM 1; END $body$",
        "-- nothing;",
    ]
