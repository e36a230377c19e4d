"""The shop that is broken on purpose: two PostgreSQL servers, product, replicas of order, all real processes."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench.fleet import Command, Fleet, until_serving
from local.postgres import SERVICES, installed
from local.settings import LOOPBACK, free_ports
from tests.support.database import TestServer
from tests.support.proxy import Proxy

T = TypeVar("T")

REPLICAS = 2

RESTART = 0.5
"""Seconds until a process that ended is started again, as Kubernetes does."""

AWAY = 4.0
"""Seconds for which a database that was killed is away: longer than a client waits for one answer."""

SETTINGS = ("order.stock.HOLD_TTL=5", "order.jobs.expired_holds.HOLD_POLL_INTERVAL=1.0")
"""A hold's time is over in seconds here, not in a minute."""

_SERVICE_NAMES = {"product": "shop.product.v1.ProductService", "order": "shop.order.v1.OrderService"}


class Servers:
    """The two servers, for the whole run, and the one thread that starts them: a child ends with its thread."""

    def __init__(self, state: Path) -> None:
        self.of = {service: TestServer(state / service, {}) for service in SERVICES}
        self._thread = ThreadPoolExecutor(1)

    async def call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def start(self) -> None:
        for server in self.of.values():
            self._thread.submit(server.postgres.start).result()

    def stop(self) -> None:
        for server in self.of.values():
            self._thread.submit(server.postgres.stop).result()
            server.postgres.remove()
        self._thread.shutdown()

    async def crash(self, service: str) -> None:
        """SIGKILL of the postmaster and all its backends, and a new start on the same port."""
        postgres = self.of[service].postgres
        await self.call(postgres.kill)
        await asyncio.sleep(AWAY)
        await self.call(lambda: postgres.start(postgres.port))


class FaultShop(Fleet):
    """One shop on databases of its own. What ends is started again, without the fault that it had."""

    def __init__(
        self,
        state: Path,
        servers: Servers,
        databases: Mapping[str, str],
        faults: Mapping[str, str],
        settings: Sequence[str],
    ) -> None:
        """`databases` are connection strings by service; `faults` are those of tests/faults/process.py by part."""
        super().__init__(state)
        self.servers = servers
        self.databases = databases
        self._faults = dict(faults)
        self._settings = settings
        self._product, *self.orders = free_ports(1 + REPLICAS)
        self.proxies = {
            "order database": Proxy(servers.of["order"].postgres.port),
            "product database": Proxy(servers.of["product"].postgres.port),
            "product": Proxy(self._product),
        }
        """What stands between: each service and its database, and order and product."""
        self.restarted: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        """The parts that were started again, and when, by the loop's clock."""

    @property
    def product(self) -> str:
        return f"{LOOPBACK}:{self._product}"

    def command(self, name: str) -> Command:
        part, _, number = name.partition("-")
        port = self._product if part == "product" else self.orders[int(number)]
        fault = self._faults.pop(name, "")
        settings = self._settings if part == "order" else ()
        command = [sys.executable, "-m", "tests.faults.process", part, *settings, *([fault] if fault else [])]
        return command, self.service_environment(part, GRPC_PORT=str(port))

    def service_environment(self, service: str, **more: str) -> Mapping[str, str]:
        database = make_conninfo(self.databases[service], port=self.proxies[f"{service} database"].port)
        target = f"dns:///{LOOPBACK}:{self.proxies['product'].port}"
        return self.environment(DATABASE_URL=database, PRODUCT_TARGET=target, **more)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FaultShop"]:
        self.logs.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            for proxy in self.proxies.values():
                await stack.enter_async_context(proxy.running())
            stack.callback(self.stop)
            names = ["product", *(f"order-{n}" for n in range(REPLICAS))]
            for name in names:
                self.launch(name)
            async with asyncio.timeout(60):
                await until_serving(self.product, _SERVICE_NAMES["product"])
                for port in self.orders:
                    await until_serving(f"{LOOPBACK}:{port}", _SERVICE_NAMES["order"])
            tending = asyncio.create_task(self._tend())
            yield self
            tending.cancel()
            with suppress(asyncio.CancelledError):
                await tending

    async def _tend(self) -> None:
        """What Kubernetes does."""
        while True:
            for name, child in list(self.children.items()):
                if child.process.poll() is not None:
                    await asyncio.sleep(RESTART)
                    self.launch(name)
                    await self.restarted.put((name, asyncio.get_running_loop().time()))
            await asyncio.sleep(0.05)

    async def restart_of(self, name: str) -> float:
        """Waits until a part has been started again; answers when."""
        async with asyncio.timeout(60):
            while True:
                part, when = await self.restarted.get()
                if part == name:
                    return when

    async def said(self, name: str, text: str) -> float:
        """Waits until a part's log has a text; answers when."""
        async with asyncio.timeout(60):
            while text not in self.children[name].log.read_text():
                await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time()

    # --- backups and the command that reconciles

    async def back_up(self, service: str) -> Path:
        path = self._state / f"{service}.dump"
        await _program("pg_dump", "--format=custom", f"--file={path}", f"--dbname={self._superuser(service)}")
        return path

    async def restore(self, service: str, backup: Path, *statements: str) -> float:
        """Puts a backup where the database is, as docs/operations.md says: beside it first, then by its name. Answers
        when that was done. `statements` are run in it before anybody sees it."""
        live = str(conninfo_to_dict(self.databases[service])["dbname"])
        new = f"{live}_new"
        postgres = self.servers.of[service].postgres
        names = {"live": sql.Identifier(live), "new": sql.Identifier(new), "old": sql.Identifier(f"{live}_old")}
        owner = sql.Identifier(SERVICES[service])
        async with await psycopg.AsyncConnection.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
            await connection.execute(sql.SQL("CREATE DATABASE {new} OWNER {owner}").format(owner=owner, **names))
            await _program("pg_restore", f"--dbname={postgres.conninfo(new)}", str(backup))
            async with await psycopg.AsyncConnection.connect(postgres.conninfo(new), autocommit=True) as restored:
                for statement in statements:
                    await restored.execute(statement.encode())
            await connection.execute(sql.SQL("ALTER DATABASE {live} ALLOW_CONNECTIONS false").format(**names))
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (live,)
            )
            await asyncio.sleep(0.5)
            await connection.execute(sql.SQL("ALTER DATABASE {live} RENAME TO {old}").format(**names))
            await connection.execute(sql.SQL("ALTER DATABASE {new} RENAME TO {live}").format(**names))
            await connection.execute(sql.SQL("DROP DATABASE {old}").format(**names))
        return asyncio.get_running_loop().time()

    def _superuser(self, service: str) -> str:
        name = str(conninfo_to_dict(self.databases[service])["dbname"])
        return self.servers.of[service].postgres.conninfo(name)

    async def reconcile(self, *options: str) -> tuple[int, str]:
        """Runs the command beside the shop; answers its exit status and what it said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "order", "reconcile", *options),
            env=self.service_environment("order"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[dict[str, psycopg.AsyncConnection[Any]]]:
        """Connections of the test's own to both databases, by service, past the proxies."""
        async with AsyncExitStack() as stack:
            yield {
                service: await stack.enter_async_context(
                    await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
                )
                for service, conninfo in self.databases.items()
            }


async def _program(name: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        installed() / "bin" / name, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def gone(output: str) -> set[str]:
    """The orders that `reconcile` has said are gone."""
    return set(re.findall(r"^order (\S+) does not exist", output, re.MULTILINE))


def short(output: str) -> set[str]:
    """The orders that it has said have no stock."""
    return set(re.findall(r"^order (\S+) .*NOT RESERVED", output, re.MULTILINE))
