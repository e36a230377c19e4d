"""The shop that the benchmarks measure: real processes on loopback, with any number of order replicas and edges."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg

from bench.fleet import Command, Fleet, until_serving
from local.children import ChildError, descendants, run
from local.edge import EdgeSettings, write
from local.postgres import Postgres
from local.settings import LOOPBACK, free_ports, prepare
from local.shop import envoy_command

READY_TIMEOUT = 60.0
"""Seconds until a process must be ready."""

SETTLE_TIMEOUT = 20.0
"""Seconds until the outbox must be empty."""

MEMORY = 1024**3
"""Bytes of memory for each Envoy: 10,000 streams need about 400 MiB."""

TICKS = os.sysconf("SC_CLK_TCK")


class BenchShop(Fleet):
    """One PostgreSQL, one product service, and the order replicas and edges (an Envoy with its sidecar each)."""

    def __init__(self, state: Path, orders: int, edges: int, options: Mapping[str, str] | None = None) -> None:
        """Starts nothing yet: see `start`.

        Args:
            state: The folder that keeps everything.
            orders: How many replicas of the order service there are.
            edges: How many edges there are.
            options: Settings of the PostgreSQL server.
        """
        super().__init__(state)
        self.postgres = Postgres(state, options=options)
        product, *ports = free_ports(1 + orders + 4 * edges)
        self._product = product
        self._orders = ports[:orders]
        self._edges = [tuple(ports[orders + 4 * n : orders + 4 * n + 4]) for n in range(edges)]
        self._spent: defaultdict[str, float] = defaultdict(float)

    @property
    def state(self) -> Path:
        """The folder that is deleted with the shop."""
        return self._state

    @property
    def order_target(self) -> str:
        """The gRPC target of all replicas of the order service."""
        return "ipv4:" + ",".join(f"{LOOPBACK}:{port}" for port in self._orders)

    @property
    def edge_ports(self) -> list[int]:
        """The port of each edge."""
        return [listen for listen, *_ in self._edges]

    def start(self) -> None:
        """Starts everything. Raises ChildError if a process fails."""
        prepare(self._state)
        self.start_databases()
        for service in ("product", "order"):
            environment = self.environment(DATABASE_URL=self.database(service).service(service))
            run(f"migrate-{service}", [sys.executable, "-m", service, "migrate"], self.logs, environment, READY_TIMEOUT)
        names = ["product"]
        names += [f"order-{n}" for n in range(len(self._orders))]
        names += [f"{part}-{n}" for n in range(len(self._edges)) for part in ("sse", "envoy")]
        for name in names:
            self.launch(name)

    def start_databases(self) -> None:
        """Starts the servers of the databases."""
        self._stack.callback(self.postgres.stop)
        self.postgres.start()

    def database(self, service: str) -> Postgres:
        """Returns the server that has the database of a service."""
        return self.postgres

    def command(self, name: str) -> Command:
        part, _, number = name.partition("-")
        n = int(number or 0)
        if part == "envoy":
            return envoy_command(write(self.edge_settings(n))), self.environment()
        command = [sys.executable, "-m", part]
        if part == "sse":
            return command, self.environment(GRPC_PORT=str(self._edges[n][3]), HTTP_PORT=str(self._edges[n][2]))
        port = self._product if part == "product" else self._orders[n]
        return command, self.environment(GRPC_PORT=str(port), DATABASE_URL=self.database(part).service(part))

    def kill(self, name: str) -> None:
        self._spent[name] += _cpu(self.children[name].process.pid)
        super().kill(name)

    async def ready(self) -> None:
        """Waits until the order replicas and the edges serve. Raises TimeoutError if that takes too long."""
        async with asyncio.timeout(READY_TIMEOUT):
            for port in self._orders:
                await until_serving(f"{LOOPBACK}:{port}", "shop.order.v1.OrderService")
            for port in self.edge_ports:
                await until_serving(f"{LOOPBACK}:{port}", "sse")

    def wait(self) -> None:
        """Waits until REST works through the first edge. Raises ChildError if that takes too long."""
        for path in ("products", "orders"):
            self.await_url(f"http://{LOOPBACK}:{self.edge_ports[0]}/api/v1/{path}?pageSize=1")

    def settle(self) -> None:
        """Waits until the product service knows all orders, since work after a response is part of its cost.

        Raises:
            TimeoutError: It takes too long.
        """
        deadline = time.monotonic() + SETTLE_TIMEOUT
        with psycopg.connect(self.database("order").service("order"), autocommit=True) as connection:
            while connection.execute("SELECT EXISTS (SELECT FROM outbox)").fetchone() != (False,):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the outbox is not empty after {SETTLE_TIMEOUT:g} s")
                time.sleep(0.01)

    def await_url(self, url: str) -> None:
        """Waits until a GET succeeds. Raises ChildError if that takes too long."""
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            self.check()
            try:
                with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own, on loopback
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ChildError(f"{url} is not ready: {error}; the logs are in {self.logs}") from None
            time.sleep(0.1)

    def check(self) -> None:
        """Raises ChildError if a process has ended."""
        self.postgres.check()
        super().check()

    def cpu(self, kind: str) -> float:
        """Returns the CPU seconds of all processes of a kind, including those that were killed."""
        return sum(self._spent[name] + _cpu(self.children[name].process.pid) for name in self.names(kind))

    def postgres_cpu(self) -> float:
        """Returns the CPU seconds of PostgreSQL, including those of connections that have ended."""
        return server_cpu(self.postgres)

    def resident(self, kind: str) -> int:
        """Returns the bytes of resident memory of all processes of a kind."""
        return sum(_resident(self.children[name].process.pid) for name in self.names(kind))

    def environment(self, **more: str) -> Mapping[str, str]:
        own = {
            "PRODUCT_TARGET": f"dns:///{LOOPBACK}:{self._product}",
            "ORDER_TARGET": self.order_target,
            # All watchers have the same address here.
            "SSE_MAX_STREAMS_PER_CLIENT": "0",
        }
        return super().environment(**own, **more)

    def edge_settings(self, n: int) -> EdgeSettings:
        """Returns the settings of the edge with this number, from 0."""
        listen, admin, http, grpc_port = self._edges[n]
        return EdgeSettings(
            files=self._state / f"envoy-{n}",
            listen=f"{LOOPBACK}:{listen}",
            admin_port=admin,
            product=f"{LOOPBACK}:{self._product}",
            order=f"{LOOPBACK}:{self._orders[0]}",
            sse_http_port=http,
            sse_grpc_port=grpc_port,
            memory=MEMORY,
            rate_limit=0,  # all clients have the same address here
        )


def server_cpu(postgres: Postgres) -> float:
    """Returns the CPU seconds of a PostgreSQL server, including those of connections that have ended."""
    return _cpu(postgres.pid, children=True) + sum(_cpu(pid) for pid in descendants(postgres.pid))


def _cpu(pid: int, *, children: bool = False) -> float:
    """Returns the CPU seconds of a process, with or without its ended children; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11 : 15 if children else 13])) / TICKS


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


Shop = TypeVar("Shop", bound=BenchShop)


@contextmanager
def bench_shop(orders: int = 1, edges: int = 1) -> Iterator[BenchShop]:
    """Runs a shop until the end of the block, and then deletes its data."""
    with running(lambda state: BenchShop(state, orders, edges)) as shop:
        yield shop


@contextmanager
def running(make: Callable[[Path], Shop]) -> Iterator[Shop]:
    """Runs a shop until the end of the block, and then deletes its data. After a failure, the folder is kept."""
    state = Path(tempfile.mkdtemp(prefix="shop-bench-"))
    shop = make(state)
    try:
        shop.start()
        yield shop
    except (ChildError, TimeoutError):
        print(f"the logs are in {shop.logs}", file=sys.stderr)
        state = Path()
        raise
    finally:
        shop.stop()
        shop.postgres.remove()
        if state.name:
            shutil.rmtree(state, ignore_errors=True)
