"""A PgBouncer in transaction mode before a test's database."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
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


@asynccontextmanager
async def pooling(conninfo: str) -> AsyncIterator[str]:
    """Runs a pooler before a database during the block. Yields the parts of the connection string that differ."""
    program = pgbouncer()
    with tempfile.TemporaryDirectory(prefix="shop-pooler-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # if we are root, it runs as another user
        child, pooler = _start(program, conninfo, folder)
        pooled = make_conninfo(conninfo, **conninfo_to_dict(pooler))
        try:
            await eventually(lambda: _takes_connections(pooled), 20)
            yield pooler
        finally:
            child.stop()


async def _takes_connections(conninfo: str) -> bool:
    with suppress(psycopg.OperationalError):
        await (await psycopg.AsyncConnection.connect(conninfo)).close()
        return True
    return False


def _start(program: str, conninfo: str, folder: Path) -> tuple[Child, str]:
    (port,) = free_ports(1)
    to = conninfo_to_dict(conninfo)
    (folder / "users").write_text(f'"{to["user"]}" "{to["password"]}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
* = host={to["host"]} port={to["port"]}
[pgbouncer]
listen_addr = {LOOPBACK}
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_client_conn = 200
ignore_startup_parameters = extra_float_digits,options
"""
    )
    child = start(
        "pgbouncer",
        [program, folder / "pgbouncer.ini"],
        folder,
        {},
        user=server_user(),
    )
    return child, make_conninfo("", host=LOOPBACK, port=port)
