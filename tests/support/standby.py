"""A hot standby of a test's server, and what else the server's own tools do."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import make_conninfo

from local.children import start
from local.postgres import Postgres
from local.server_user import server_user
from local.settings import LOOPBACK, free_ports
from tests.support.database import FAST
from tests.support.eventually import eventually


def tool(postgres: Postgres, name: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Runs one of the server's programs as the server's user; what it printed."""
    user = server_user()
    # Python would fork to change the user, and so run what grpc does at a fork.
    as_user = ["setpriv", *user.setpriv_options, "--"] if user else []
    done = subprocess.run(
        [*as_user, postgres.programs / "bin" / name, *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env=postgres.environment,
        cwd=postgres.home,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Standby:
    """Follows a primary until it is promoted."""

    def __init__(self, primary: Postgres) -> None:
        self._primary = primary
        self.port = free_ports(1)[0]

    @contextmanager
    def running(self) -> Iterator["Standby"]:
        primary = self._primary
        data = primary.new_folder("standby")
        tool(primary, "pg_basebackup", "-D", str(data), "-R", "-c", "fast", "-d", primary.conninfo("postgres"))
        # It must allow as many connections as its primary.
        own = {"listen_addresses": LOOPBACK, "port": str(self.port), "unix_socket_directories": ""}
        settings = {**own, "max_connections": FAST["max_connections"]}
        child = start(
            "standby",
            [primary.programs / "bin" / "postgres", "-D", data, *(f"--{k}={v}" for k, v in settings.items())],
            primary.logs,
            primary.environment,
            death_signal="INT",
            user=server_user(),
            folder=primary.home,
        )
        try:
            yield self
        finally:
            child.stop()

    async def answers(self) -> None:
        """Returns when it takes connections."""

        async def connected() -> bool:
            try:
                await (await psycopg.AsyncConnection.connect(self._conninfo)).close()
            except psycopg.OperationalError:
                return False
            return True

        await eventually(connected, 20)

    async def promote(self) -> None:
        """Makes it the primary, once it has all that the primary committed. Ends the primary, as a crash would."""
        async with await psycopg.AsyncConnection.connect(self._primary.conninfo("postgres")) as connection:

            async def replayed() -> bool:
                query = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) FROM pg_stat_replication"
                return (await (await connection.execute(query)).fetchone()) == (0,)

            await eventually(replayed)
        await asyncio.to_thread(self._primary.kill)
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            await connection.execute("SELECT pg_promote()")

    @property
    def _conninfo(self) -> str:
        return make_conninfo(self._primary.conninfo("postgres"), port=self.port)
