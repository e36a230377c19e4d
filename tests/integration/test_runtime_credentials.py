"""Credentials in files: a mounted Secret changes while the process runs."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from order.live import tailer
from runtime import readiness as module
from runtime.config import DatabaseConfig
from runtime.credentials import FILES, ConnectionInfo
from runtime.database import Database
from runtime.errors import ApiError
from runtime.health import LastingProblem
from runtime.migrate import migrate
from runtime.schema import MigrationError, Schema
from runtime.topics import Topics
from tests.support.database import REPOSITORY, DatabaseServer
from tests.support.eventually import eventually

MIGRATIONS = REPOSITORY / "order" / "migrations"
SCHEMA = Schema.load(MIGRATIONS)


@dataclass(frozen=True)
class Number:
    n: int


class Secret:
    """The files of a mounted Secret, and its role. A change is atomic, because the kubelet swaps a link."""

    def __init__(self, folder: Path, conninfo: str, admin: str, role: str) -> None:
        self.folder = folder
        self._admin = admin
        self._role = role
        found = {name: str(conninfo_to_dict(conninfo)[key]) for name, key in FILES.items() if name != "password"}
        self._values = {**found, "username": role}
        self.config = DatabaseConfig(conninfo="", credentials=str(folder), pool_size=2, pool_waiting=5, timeout=2)

    def patch(self, password: str, more: Mapping[str, str] | None = None) -> None:
        """Writes the files, as the kubelet does after a change of the Secret."""
        made = self.folder / f"..{uuid4().hex}"
        made.mkdir()
        for name, value in {**self._values, "password": password, **(more or {})}.items():
            (made / name).write_text(value)
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        (self.folder / "..new").symlink_to(made.name)
        (self.folder / "..new").rename(self.folder / "..data")

    async def alter(self, password: str, *, end_sessions: bool = False) -> None:
        """Changes the role's password, as an operator does."""
        async with await psycopg.AsyncConnection.connect(self._admin, autocommit=True) as admin:
            await admin.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self._role), sql.Literal(password))
            )
            if end_sessions:
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (self._role,)
                )


@pytest.fixture
def secret(order_database: str, postgres: DatabaseServer, tmp_path: Path) -> Iterator[Secret]:
    """The Secret of a role that is a member of the owner of the database."""
    admin = postgres.postgres.conninfo("postgres")
    role = f"role_{uuid4().hex[:8]}"
    owner = sql.Identifier(str(conninfo_to_dict(order_database)["user"]))
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'one' IN ROLE {}").format(sql.Identifier(role), owner)
        )
    try:
        made = Secret(tmp_path, order_database, admin, role)
        made.patch("one")
        yield made
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", (role,)
            )
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@asynccontextmanager
async def opened(secret: Secret) -> AsyncIterator[Database]:
    database = Database(secret.config, "test")
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def one(database: Database) -> bool:
    return await database.fetch("one", "SELECT 1 AS n", {}, Number) == [Number(1)]


async def test_next_connection_uses_the_rotated_password(secret: Secret) -> None:
    """No call fails, whichever connection is lost after the rotation."""
    async with opened(secret) as database:
        for password in ("two", "it's \\ a 'third", "Ünïcödé % #"):
            assert await one(database)
            secret.patch(password)
            await secret.alter(password, end_sessions=True)
            for _ in range(5):
                assert await one(database)


async def test_calls_succeed_while_the_secret_is_late(secret: Secret) -> None:
    """The kubelet may take a minute. Meanwhile open connections work, and the service stays ready."""
    async with opened(secret) as database:
        assert await database.check(SCHEMA) == ""
        await secret.alter("two")
        for _ in range(3):
            assert await one(database)
            assert await database.check(SCHEMA) == ""


async def test_refused_password_is_a_lasting_problem(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_ACQUIRE_TIMEOUT", 0.2)
    async with opened(secret) as database:
        assert await database.check(SCHEMA) == ""
        await secret.alter("two", end_sessions=True)

        async def refused() -> bool:
            return isinstance(await database.check(SCHEMA), LastingProblem)

        await eventually(refused)
        found = await database.check(SCHEMA)
        assert "password authentication failed" in found
        assert "two" not in found
        with pytest.raises(ApiError):
            await one(database)
        secret.patch("two")

        async def well() -> bool:
            return not await database.check(SCHEMA)

        await eventually(well, 3)
        assert await one(database)


async def test_outage_is_no_lasting_problem(
    secret: Secret, order_database: str, postgres: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_ACQUIRE_TIMEOUT", 0.2)
    async with opened(secret) as database:
        assert await database.check(SCHEMA) == ""
        with postgres.shut(order_database):
            found = await database.check(SCHEMA)
            assert "the database is unavailable" in found
            assert not isinstance(found, LastingProblem)


async def test_tailer_uses_a_rotated_password(secret: Secret) -> None:
    reader = tailer.Tailer(ConnectionInfo(secret.config, "test tailer"), Topics())
    running = asyncio.create_task(reader.run())

    async def well() -> bool:
        return not await reader.check()

    async def refused() -> bool:
        return "password authentication failed" in await reader.check()

    try:
        await eventually(well, 10)
        await secret.alter("two", end_sessions=True)
        await eventually(refused, 10)
        secret.patch("two")
        await eventually(well, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_migration_waits_for_accepted_credentials(secret: Secret) -> None:
    conninfo = ConnectionInfo(secret.config, "test migrate")
    await secret.alter("two")
    with pytest.raises(MigrationError, match="password authentication failed"):
        await migrate(conninfo, MIGRATIONS, wait=0)
    migrating = asyncio.create_task(migrate(conninfo, MIGRATIONS, wait=20))
    await asyncio.sleep(0.6)
    secret.patch("two")
    assert await migrating == []


async def test_other_parts_of_the_secret_change_too(secret: Secret) -> None:
    """Host and name of the database change if it is restored beside the old one."""
    conninfo = ConnectionInfo(secret.config, "test")
    before = conninfo_to_dict(conninfo())
    secret.patch("two", {"host": "elsewhere", "dbname": "restored"})
    after = conninfo_to_dict(conninfo())
    assert after == {**before, "password": "two", "host": "elsewhere", "dbname": "restored"}


def test_database_url_overrides_the_files(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    """What neither has comes from libpq's environment variables."""
    monkeypatch.setenv("PGHOST", "from-env")
    config = DatabaseConfig(
        conninfo=make_conninfo(user="given"), credentials=str(secret.folder), pool_size=1, pool_waiting=1, timeout=1
    )
    (secret.folder / "host").unlink()
    found = conninfo_to_dict(ConnectionInfo(config, "test")())
    assert (found["user"], found["password"], found["host"]) == ("given", "one", "from-env")


def test_trailing_line_break_of_a_file_is_ignored(secret: Secret) -> None:
    secret.patch("two\n")
    assert conninfo_to_dict(ConnectionInfo(secret.config, "test")())["password"] == "two"


def test_unreadable_file_is_named_without_content(secret: Secret) -> None:
    shutil.rmtree(secret.folder / "..data" / "password", ignore_errors=True)
    (secret.folder / "password").unlink()
    (secret.folder / "password").write_bytes(b"s3cret\xff")
    with pytest.raises(psycopg.OperationalError, match=f"cannot read {secret.folder}/password") as caught:
        ConnectionInfo(secret.config, "test")()
    assert "s3cret" not in str(caught.value)
