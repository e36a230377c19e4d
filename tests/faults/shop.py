"""The shop that is broken on purpose: two PostgreSQL servers, product, and replicas of order, all real processes."""

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
from local.databases import SERVICES
from local.server_programs import installed
from local.settings import LOOPBACK, free_ports
from tests.faults.process import setting
from tests.faults.recorder import Pace, Target
from tests.support.database import DatabaseServer
from tests.support.oidc import Issuer
from tests.support.proxy import Proxy

T = TypeVar("T")

REPLICAS = 2

RESTART = 0.5
"""Seconds until a process that has ended is started again, as Kubernetes does."""

DATABASE_DOWNTIME = 7.0
"""Seconds from the kill of a database to its start: longer than a client waits for one response, and long enough
for its alert."""

SETTINGS = (setting("order.stock.HOLD_TTL", 5), setting("order.jobs.expired_holds.HOLD_POLL_INTERVAL", 1))
"""A hold expires after seconds here, not after a minute."""

PACE = Pace(interval=1, stretch=20, tailer=2)
"""A second counts as 20 seconds for the rules, since Kubernetes takes longer to start a process or a database again."""

PACED = (
    setting("order.jobs.backlog.BACKLOG_POLL_INTERVAL", 1),
    setting("order.jobs.expired_carts.PURGE_INTERVAL", 15),
    setting("order.jobs.retention.PRUNE_INTERVAL", 15),
    setting("runtime.server.UNREADY_DELAY", 1.5),
    setting("runtime.telemetry.event_loop.WINDOW", 1),
)
"""Intervals that are shorter by as much."""

_SERVICE_NAMES = {"product": "shop.product.v1.ProductService", "order": "shop.order.v1.OrderService"}


class Servers:
    """The two servers, and the one thread that starts them: a child process ends with the thread that started it."""

    def __init__(self, state: Path) -> None:
        self.of = {service: DatabaseServer(state / service, {}) for service in SERVICES}
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
        """Kills PostgreSQL with all its processes, and starts it again on the same port."""
        postgres = self.of[service].postgres
        await self.call(postgres.kill)
        await asyncio.sleep(DATABASE_DOWNTIME)
        await self.call(lambda: postgres.start(postgres.port))


class FaultShop(Fleet):
    """One shop on databases of its own. A process that ends is started again, without its fault."""

    def __init__(
        self,
        state: Path,
        servers: Servers,
        databases: Mapping[str, str],
        faults: Mapping[str, str],
        settings: Sequence[str],
        *,
        more_ports: int = 0,
    ) -> None:
        """Starts nothing yet: see `running`.

        Args:
            state: The folder of the logs.
            servers: The database servers.
            databases: A connection string for each service.
            faults: Faults of tests/faults/process.py, by the name of the process.
            settings: Settings of tests/faults/process.py, each for the process that has the module.
            more_ports: How many more ports are to be free.
        """
        super().__init__(state)
        self.servers = servers
        self.databases = databases
        self._faults = dict(faults)
        self._ended: set[str] = set()
        self._settings = (*PACED, *settings)
        self._product, *ports = free_ports(2 + 2 * REPLICAS + more_ports)
        self.orders, ports = ports[:REPLICAS], ports[REPLICAS:]
        names = ["product", *(f"order-{n}" for n in range(REPLICAS))]
        self.targets = {
            name: Target(name.partition("-")[0], f"shop-{name}", port) for name, port in zip(names, ports, strict=False)
        }
        """Where each process has its metrics."""
        self.more_ports = ports[len(names) :]
        """Ports that are free."""
        self.proxies = {
            "order database": Proxy(servers.of["order"].postgres.port),
            "product database": Proxy(servers.of["product"].postgres.port),
            "product": Proxy(self._product),
        }
        """The connections that can be broken: from each service to its database, and from order to product."""
        self.issuer: Issuer = Issuer("https://login.example")
        """Makes the tokens that the order service accepts. The product service accepts everybody."""
        self.restarted: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        """The processes that were started again, and when, by the event loop's clock."""

    @property
    def product(self) -> str:
        return f"{LOOPBACK}:{self._product}"

    def command(self, name: str) -> Command:
        part, _, number = name.partition("-")
        port = self._product if part == "product" else self.orders[int(number)]
        fault = self._faults.pop(name, "")
        settings = [each for each in self._settings if each.startswith((f"{part}.", "runtime."))]
        command = [sys.executable, "-m", "tests.faults.process", part, *settings, *([fault] if fault else [])]
        metrics = str(self.targets[name].port)
        return command, self.service_environment(part, GRPC_PORT=str(port), METRICS_PORT=metrics)

    def service_environment(self, service: str, **more: str) -> Mapping[str, str]:
        database = make_conninfo(self.databases[service], port=self.proxies[f"{service} database"].port)
        target = f"dns:///{LOOPBACK}:{self.proxies['product'].port}"
        access = self.access() if service == "order" else {}
        return self.environment(DATABASE_URL=database, PRODUCT_TARGET=target, **access, **more)

    def access(self) -> Mapping[str, str]:
        """Returns the environment variables of a process that accepts the issuer's tokens."""
        return self.issuer.in_file(self._state / "keys.json")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FaultShop"]:
        self.logs.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            for proxy in self.proxies.values():
                await stack.enter_async_context(proxy.running())
            stack.callback(self.stop)
            for name in self.targets:
                self.launch(name)
            async with asyncio.timeout(60):
                await self.ready()
            restarting = asyncio.create_task(self._restart_processes())
            yield self
            restarting.cancel()
            with suppress(asyncio.CancelledError):
                await restarting

    async def ready(self) -> None:
        """Waits until all processes serve. Has no time limit of its own."""
        await until_serving(self.product, _SERVICE_NAMES["product"])
        for port in self.orders:
            await until_serving(f"{LOOPBACK}:{port}", _SERVICE_NAMES["order"])

    def end(self, name: str) -> None:
        """Ends a process as a crash would. It is not started again."""
        self._ended.add(name)
        self.kill(name)

    async def _restart_processes(self) -> None:
        """Starts processes again that have ended, as Kubernetes does."""
        while True:
            for name, child in list(self.children.items()):
                if child.process.poll() is not None and name not in self._ended:
                    await asyncio.sleep(RESTART)
                    self.launch(name)
                    await self.restarted.put((name, asyncio.get_running_loop().time()))
            await asyncio.sleep(0.05)

    async def restart_of(self, *names: str) -> float:
        """Waits until these processes were started again. Returns when the last one was, by the event loop's clock."""
        missing = set(names)
        when = 0.0
        async with asyncio.timeout(60):
            while missing:
                part, when = await self.restarted.get()
                missing.discard(part)
        return when

    async def wait_for_log(self, name: str, text: str) -> float:
        """Waits until the log of a process has a text. Returns when, by the event loop's clock."""
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
        """Replaces a database by a backup, as docs/operations.md says.

        Args:
            service: Whose database it is.
            backup: The file.
            statements: Run in the restored database before a service can use it.

        Returns:
            When the restored database could be used, by the event loop's clock.
        """
        live = str(conninfo_to_dict(self.databases[service])["dbname"])
        new = f"{live}_new"
        postgres = self.servers.of[service].postgres
        names = {"live": sql.Identifier(live), "new": sql.Identifier(new), "old": sql.Identifier(f"{live}_old")}
        owner = sql.Identifier(service)
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
        """Runs the command while the shop runs. Returns its exit status and its output."""
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
        """Connections to both databases, by service. They do not pass the proxies."""
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


def missing_orders(output: str) -> set[str]:
    """Returns the ids of the orders that `reconcile` reported as missing."""
    return set(re.findall(r"^order (\S+) does not exist", output, re.MULTILINE))


def orders_without_stock(output: str) -> set[str]:
    """Returns the ids of the orders that `reconcile` reported as having no stock."""
    return set(re.findall(r"^order (\S+) .*NOT RESERVED", output, re.MULTILINE))
