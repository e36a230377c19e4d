"""A PgBouncer in transaction mode before a test's database."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from local.children import Child, start
from local.server_user import server_user
from local.settings import LOOPBACK, free_ports
from tests.support.eventually import eventually

SERVER_CONNECTIONS = 3
"""Connections to the server, for all clients together: fewer than a service has, so that clients share them."""


def pgbouncer() -> str:
    """Returns the program. Skips the test if it is not installed, but fails in CI."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        assert not os.environ.get("CI"), "pgbouncer is missing"
        pytest.skip("pgbouncer is not installed")
    return found


class Pooler:
    """A PgBouncer, which a test can restart."""

    def __init__(self, conninfo: str, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """Starts nothing yet.

        Args:
            conninfo: How it connects to the server; the user and the password are also those of its clients.
            folder: The folder of its files. It is made readable for other users: if we are root, it runs as another.
            settings: Its settings, by name.
        """
        self._program = pgbouncer()
        self._folder = folder
        self._conninfo = conninfo
        self._child: Child | None = None
        (self._port,) = free_ports(1)
        self._write(settings or {})

    @property
    def parts(self) -> str:
        """The parts of the connection string that differ."""
        return make_conninfo("", host=LOOPBACK, port=self._port)

    @property
    def conninfo(self) -> str:
        """The whole connection string of a client."""
        return make_conninfo(self._conninfo, **conninfo_to_dict(self.parts))

    def _write(self, settings: Mapping[str, str]) -> None:
        self._folder.chmod(0o755)
        to = conninfo_to_dict(self._conninfo)
        (self._folder / "users").write_text(f'"{to["user"]}" "{to["password"]}"\n')
        options = {
            "listen_addr": LOOPBACK,
            "listen_port": str(self._port),
            "unix_socket_dir": "",
            "auth_type": "plain",
            "auth_file": f"{self._folder}/users",
            "pool_mode": "transaction",
            "default_pool_size": str(SERVER_CONNECTIONS),
            "max_client_conn": "200",
            "ignore_startup_parameters": "extra_float_digits,options",
            **settings,
        }
        lines = "\n".join(f"{name} = {value}" for name, value in options.items())
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={to['host']} port={to['port']}\n[pgbouncer]\n{lines}\n"
        )

    async def start(self) -> None:
        """Starts it, and waits until it takes connections."""
        self._child = start(
            "pgbouncer", [self._program, self._folder / "pgbouncer.ini"], self._folder, {}, user=server_user()
        )
        await eventually(self._takes_connections, 20)

    def stop(self) -> None:
        """Ends it at once: its clients lose their connections."""
        if self._child:
            self._child.stop(signal.SIGKILL)
            self._child = None

    async def _takes_connections(self) -> bool:
        with suppress(psycopg.OperationalError):
            await (await psycopg.AsyncConnection.connect(self.conninfo)).close()
            return True
        return False


@asynccontextmanager
async def running_pooler(conninfo: str, settings: Mapping[str, str] | None = None) -> AsyncIterator[Pooler]:
    """Runs a pooler before a database during the block."""
    with tempfile.TemporaryDirectory(prefix="shop-pooler-") as name:
        pooler = Pooler(conninfo, Path(name), settings)
        await pooler.start()
        try:
            yield pooler
        finally:
            pooler.stop()


@asynccontextmanager
async def pooling(conninfo: str) -> AsyncIterator[str]:
    """Runs a pooler before a database during the block. Yields the parts of the connection string that differ."""
    async with running_pooler(conninfo) as pooler:
        yield pooler.parts
