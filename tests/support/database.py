"""Databases for tests: a template of each service's schema, cloned for each test."""

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from local.postgres import Postgres
from runtime.migrate import migrate

REPOSITORY = Path(__file__).resolve().parents[2]

FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "400",
    "shared_preload_libraries": "pg_stat_statements",
}
"""Settings of a fast server whose data may be lost, and which counts its statements."""


class DatabaseServer:
    """A PostgreSQL server for tests, which clones a template for each test."""

    def __init__(self, state: Path, options: Mapping[str, str] = FAST) -> None:
        """Starts nothing yet: see `running`.

        Args:
            state: The folder that keeps everything. It is made if it does not exist.
            options: Settings of the server. Without any, what it has acknowledged survives a crash.
        """
        state.mkdir(parents=True, exist_ok=True)
        self.postgres = Postgres(state, options=options)
        self._templates: set[str] = set()
        self._drops = ThreadPoolExecutor(1)
        self._dropping: list[Future[None]] = []

    @contextmanager
    def running(self) -> Iterator["DatabaseServer"]:
        """Runs the server until the end of the block, and then deletes its data."""
        try:
            self.postgres.start()
            with self._drops:
                yield self
            for each in self._dropping:
                each.result()
        finally:
            self.postgres.stop()
            self.postgres.remove()

    def _run(self, statement: sql.Composed, database: str = "postgres") -> None:
        with psycopg.connect(self.postgres.conninfo(database), autocommit=True) as connection:
            connection.execute(statement)

    def _drop(self, name: str) -> None:
        """Drops a database in another thread.

        The server drops none while a client logs in. A service of this process could not, if its loop waited here: for
        a minute, until the login ends by its timeout.
        """
        statement = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))

        def drop() -> None:
            with suppress(psycopg.OperationalError):  # the server has ended, and its databases go with its folder
                self._run(statement)

        self._dropping.append(self._drops.submit(drop))

    @contextmanager
    def database(self, service: str = "") -> Iterator[str]:
        """Makes a database and yields the connection string of the role that owns it. Drops it after the block.

        Args:
            service: The service whose schema it has; without one, the database is empty.
        """
        role = service or "product"
        template = self._template(service) if service else "template1"
        name = f"test_{uuid4().hex}"
        self._run(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(role), sql.Identifier(template)
            )
        )
        try:
            yield self.postgres.conninfo(name, role)
        finally:
            self._drop(name)

    @contextmanager
    def shut(self, conninfo: str) -> Iterator[None]:
        """Makes a database unavailable during the block: ends all connections and refuses new ones."""
        name = str(conninfo_to_dict(conninfo)["dbname"])
        change = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        self._run(change.format(sql.Identifier(name), sql.SQL("false")))
        self._run(
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(
                sql.Literal(name)
            )
        )
        try:
            yield
        finally:
            self._run(change.format(sql.Identifier(name), sql.SQL("true")))

    @contextmanager
    def plain(self, service: str) -> Iterator[str]:
        """Does the same as `database`, but with the locale C, which only knows ASCII and is a common default."""
        name = f"test_{uuid4().hex}"
        self._run(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'").format(
                sql.Identifier(name), sql.Identifier(service)
            )
        )
        try:
            conninfo = self.postgres.conninfo(name, service)
            run_apart(conninfo, REPOSITORY / service / "migrations")
            yield conninfo
        finally:
            self._drop(name)

    def _template(self, service: str) -> str:
        if service not in self._templates:
            # In another thread, as the caller may have a running event loop.
            run_apart(self.postgres.service(service), REPOSITORY / service / "migrations")
            self._templates.add(service)
        return service


def run_apart(conninfo: str, directory: Path) -> None:
    """Migrates a database, in another thread with its own event loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(migrate(conninfo, directory))).result()
