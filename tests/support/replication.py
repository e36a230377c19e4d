"""A PostgreSQL primary with streaming standbys on loopback, and the Services `-rw` and `-ro` before them.

The Services are forwarders with the semantics of kube-proxy: new connections go to the present server, and open ones
stay with the server that they were made to. What a test does to a server does not move a Service: call `route`.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from local.children import Child, descendants, start, wait_for_exit
from local.databases import SERVICES, SUPERUSER
from local.postgres import Postgres
from local.server_user import server_user
from local.settings import LOOPBACK, free_ports
from tests.support.database import REPOSITORY, run_apart
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.standby import tool

OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_keep_size": "256MB",
    "wal_retrieve_retry_interval": "200ms",
    "log_min_messages": "warning",
}
"""Settings of each server. No test cuts the power, so nothing waits for the disk."""


class Instance:
    """One server, which is the primary or a standby."""

    def __init__(self, number: int, data: Path, home: Postgres) -> None:
        self.number = number
        self.data = data
        self.port = free_ports(1)[0]
        self._home = home
        self._child: Child | None = None

    @property
    def conninfo(self) -> str:
        """How the superuser connects, past the Services."""
        return make_conninfo(self._home.conninfo("postgres"), port=self.port, connect_timeout=2)

    @property
    def pids(self) -> list[int]:
        """All its processes, the main one first."""
        assert self._child, "the server does not run"
        return [self._child.process.pid, *descendants(self._child.process.pid)]

    def start(self) -> None:
        """Starts the server; does not wait for it."""
        options = OPTIONS | {"port": str(self.port), "cluster_name": f"instance_{self.number}"}
        self._child = start(
            f"instance-{self.number}",
            [
                *(self._home.programs / "bin" / "postgres", "-D", self.data),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            self._home.logs,
            self._home.environment,
            death_signal="INT",
            user=server_user(),
            folder=self._home.home,
        )

    def stop(self) -> None:
        """Shuts the server down as an operator does: it ends its connections, and sends what it wrote to standbys."""
        if self._child:
            self.thaw()
            self._child.stop(signal.SIGINT)
            self._child = None

    def kill(self) -> None:
        """Ends all processes as a crash would."""
        pids = self.pids
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._child
        self._child.process.wait()
        self._child = None
        assert all(wait_for_exit(pid, 10) for pid in pids[1:])

    def freeze(self) -> None:
        """Stops all processes: connections stay open, and nothing responds."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen server go on."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def run(self, statement: str, database: str = "postgres") -> list[Any]:
        """Runs a statement as the superuser, past the Services. Returns its rows."""
        async with await psycopg.AsyncConnection.connect(self.conninfo, dbname=database, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def responds(self) -> bool:
        """Returns whether it takes connections."""
        with suppress(psycopg.OperationalError):
            return await self.run("SELECT true") == [(True,)]
        return False


class Replication:
    """The servers and the Services before them."""

    def __init__(self, state: Path, *, standbys: int = 1) -> None:
        """Starts nothing yet: see `running`.

        Args:
            state: The folder that keeps everything.
            standbys: How many standbys follow the primary.
        """
        self._home = Postgres(state)
        self._standbys = standbys
        self._synchronous = False
        self.instances: list[Instance] = []
        self.primary = 0
        """The number of the instance that accepts writes."""
        self.rw = Proxy(0)
        """The Service that leads to the primary."""
        self.ro = Proxy(0)
        """The Service that leads to a standby."""

    def conninfo(self, service: str, proxy: Proxy | None = None) -> str:
        """Returns how a service connects: through `rw`, or through the given proxy."""
        return make_conninfo(self._home.conninfo(service, service), port=(proxy or self.rw).port)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Replication"]:
        """Runs everything during the block, with the schema of both services, and then deletes the data."""
        async with AsyncExitStack() as stack:
            stack.callback(self._home.remove)
            await asyncio.to_thread(self._prepare)
            stack.push_async_callback(self._stop_all)
            first = Instance(0, self._home.home / "data", self._home)
            self.instances.append(first)
            first.start()
            await eventually(first.responds)
            for number in range(1, 1 + self._standbys):
                self.instances.append(Instance(number, self._home.home / f"data-{number}", self._home))
                await self.join(number)
            await stack.enter_async_context(self.rw.running())
            await stack.enter_async_context(self.ro.running())
            self.route(0)
            yield self

    def _prepare(self) -> None:
        self._home.start()
        for service in SERVICES:
            run_apart(self._home.service(service), REPOSITORY / service / "migrations")
        self._home.stop()

    async def _stop_all(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(each.stop) for each in self.instances))

    def route(self, number: int) -> None:
        """Points `rw` at an instance, and `ro` at another one. Open connections stay where they are."""
        self.primary = number
        self.rw.target = self.instances[number].port
        others = [each.port for each in self.instances if each.number != number]
        self.ro.target = others[0] if others else self.rw.target

    async def set_synchronous(self, synchronous: bool) -> None:
        """Sets whether a commit waits until one standby has it; also for a later primary."""
        self._synchronous = synchronous
        await self._apply_synchronous()

    async def _apply_synchronous(self) -> None:
        names = "ANY 1 (*)" if self._synchronous else ""
        primary = self.instances[self.primary]
        await primary.run(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await primary.run("SELECT pg_reload_conf()")

    async def join(self, number: int) -> None:
        """Makes an instance a standby of the primary, with a new copy of its data, and waits until it follows."""
        instance, primary = self.instances[number], self.instances[self.primary]
        await asyncio.to_thread(instance.stop)
        folder = self._home.new_folder(instance.data.name)
        backup = ("pg_basebackup", "-D", str(folder), "-R", "-c", "fast", "-d", primary.conninfo)
        await asyncio.to_thread(tool, self._home, *backup)
        instance.start()
        await self._until_following(number)

    async def rejoin(self, number: int) -> None:
        """Starts an instance that was shut down as a standby of the primary, and waits until it follows."""
        instance = self.instances[number]
        (instance.data / "standby.signal").touch()
        with (instance.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = '{self._primary_conninfo()}'\n")
        instance.start()
        await self._until_following(number)

    def _primary_conninfo(self) -> str:
        return make_conninfo(self.instances[self.primary].conninfo, dbname="replication", user=SUPERUSER)

    async def _until_following(self, number: int) -> None:
        async def follows() -> bool:
            with suppress(psycopg.OperationalError):
                return bool(await self.instances[number].run("SELECT 1 FROM pg_stat_wal_receiver"))
            return False

        await eventually(follows, 30)

    async def promote(self, number: int, *, route: bool = True) -> None:
        """Makes a standby a primary; the other standbys that run follow it. Does nothing to the old primary.

        Args:
            number: The standby.
            route: Whether the Services follow at once.
        """
        old, self.primary = self.primary, number
        await self.instances[number].run("SELECT pg_promote()")
        await self._apply_synchronous()
        for each in self.instances:
            if each.number not in (old, number) and await each.responds():
                await each.run(f"ALTER SYSTEM SET primary_conninfo = '{self._primary_conninfo()}'")
                await each.run("SELECT pg_reload_conf()")
        if route:
            self.route(number)

    async def switch_over(self, number: int) -> None:
        """Moves the primary as an operator does: the old one shuts down, and comes back as a standby."""
        old = self.primary
        await asyncio.to_thread(self.instances[old].stop)
        await self.promote(number)
        await self.rejoin(old)

    def lose(self, number: int) -> int:
        """Makes the host of an instance vanish for the clients of the Services: nothing tells them.

        Open connections hang, and new ones to it do, too. Returns how many were open.
        """
        port = self.instances[number].port
        for proxy in (self.rw, self.ro):
            proxy.lost_targets.add(port)
        return self.rw.hang(port) + self.ro.hang(port)
