"""The shop and its rivals side by side, on one PostgreSQL, with the same rows."""

import json
import shutil
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlencode
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.bench_shop import BenchShop, running
from bench.data import fill_orders, fill_products, fill_reservations
from bench.fleet import Command
from bench.load import LoadError
from bench.table import CEILING, FASTAPI, SHOP
from local.edge import EdgeSettings, write
from local.settings import LOOPBACK, free_ports
from local.shop import envoy_command
from product.listing import ProductQuery
from runtime import times

HERE = Path(__file__).parent
GO = "go"
RIVALS = (CEILING, FASTAPI, GO)
DATABASE = "rival"
"""The database of all rivals."""

POOL_SIZE = 10
"""Connections of each rival: as many as the shop uses to place orders, 6 of order and 4 of product."""


def _unavailable() -> Mapping[str, str]:
    """Returns the rivals that cannot run here, each with the reason."""
    found = {}
    if find_spec("fastapi") is None:
        found[FASTAPI] = "the packages of the extra `bench` are not installed"
    if shutil.which("go") is None:
        found[GO] = "Go is not installed"
    return found


@dataclass(frozen=True)
class Position:
    """A place in the catalogue, newest first: after this many products of a category, or of all."""

    category: str
    after: int


def shape(body: object) -> object:
    """Returns what must be the same in all systems: fields, kinds of values, numbers of rows."""
    if isinstance(body, dict):
        return {key: shape(value) for key, value in body.items()}
    if isinstance(body, list):
        return [len(body), shape(body[0]) if body else None]
    return "number" if isinstance(body, int | float) else type(body).__name__


class ComparedShop(BenchShop):
    """The shop, an empty RPC behind an Envoy with the same configuration, FastAPI, and Go."""

    def __init__(self, state: Path, products: int, orders: int, rivals: Sequence[str]) -> None:
        super().__init__(state, orders=1, edges=1)
        self._sizes = products, orders
        self.skipped = _unavailable()
        self.systems = [name for name in (SHOP, *rivals) if name not in self.skipped]
        empty = free_ports(8)
        self._empty_edge, self._empty_admin, self._empty_product, self._empty_order = empty[:4]
        self._ports = {FASTAPI: empty[4], GO: empty[5]}
        self._unused = empty[6:8]

    def url(self, system: str) -> str:
        """Returns the address of a system."""
        if system == SHOP:
            return f"http://{LOOPBACK}:{self.edge_ports[0]}"
        return f"http://{LOOPBACK}:{self._empty_edge if system == CEILING else self._ports[system]}"

    def start(self) -> None:
        """Starts everything. Raises ChildError if a process fails."""
        super().start()
        self._fill()
        if GO in self.systems:
            command = ["go", "build", "-trimpath", "-o", str(self.state / "rival-go"), "."]
            built = subprocess.run(command, cwd=HERE / "go", capture_output=True, text=True, check=False)
            if built.returncode:
                self.systems.remove(GO)
                self.skipped = {**self.skipped, GO: "it failed to build: " + built.stderr.strip().splitlines()[-1]}
        for name in ("empty-service", "empty-envoy", FASTAPI, GO):
            if name.partition("-")[0] in self.systems:
                self.launch(name)
        for system in self.systems:
            self.await_url(f"{self.url(system)}/api/v1/products?pageSize=1")
            self.await_url(f"{self.url(system)}/api/v1/orders?pageSize=1")

    def check_same(self, paths: Sequence[str]) -> None:
        """Raises LoadError if a system returns other fields, or another number of rows, than the shop."""
        for path in paths:
            shapes = {}
            for system in self.systems:
                with urllib.request.urlopen(self.url(system) + path, timeout=10) as response:  # noqa: S310 - our own
                    shapes[system] = shape(json.load(response))
            for system, found in shapes.items():
                if found != shapes[SHOP]:
                    raise LoadError(f"{path}: {system} returns {found}, and the shop {shapes[SHOP]}")

    def page_queries(self, system: str, positions: Sequence[Position]) -> list[str]:
        """Returns the query strings for pages at these positions, with the system's own page tokens."""
        ours = system in (SHOP, CEILING)
        found: defaultdict[str, list[tuple[datetime, UUID]]] = defaultdict(list)
        with psycopg.connect(
            self.postgres.service("product") if ours else self.postgres.conninfo(DATABASE)
        ) as connection:
            rows = connection.execute("SELECT category, create_time, id FROM product ORDER BY 2 DESC, 3 DESC")
            for category, time, last in rows:
                for each in ("", category):
                    found[each].append((time, last))
        queries = []
        for position in positions:
            time, last = found[position.category][position.after - 1]
            token = f"{times.microseconds(time)}_{last}"
            if ours:
                token = ProductQuery(category=position.category).cursor("").token((time, last))
            query = {"pageToken": token, "category": position.category}
            queries.append(urlencode({key: value for key, value in query.items() if value}))
        return queries

    def command(self, name: str) -> Command:
        if name == "empty-service":
            ports = [str(self._empty_product), str(self._empty_order)]
            return [sys.executable, "-m", "bench.rivals.empty", *ports], self.environment()
        if name == "empty-envoy":
            settings = EdgeSettings(
                files=self.state / "envoy-empty",
                listen=f"{LOOPBACK}:{self._empty_edge}",
                admin_port=self._empty_admin,
                product=f"{LOOPBACK}:{self._empty_product}",
                order=f"{LOOPBACK}:{self._empty_order}",
                sse_http_port=self._unused[0],
                sse_grpc_port=self._unused[1],
                rate_limit=0,
            )
            return envoy_command(write(settings)), self.environment()
        if name == FASTAPI:
            app = ["bench.rivals.fastapi_shop:app", "--no-access-log", "--log-level", "warning", "--loop", "uvloop"]
            address = ["--host", LOOPBACK, "--port", str(self._ports[FASTAPI])]
            return [sys.executable, "-m", "uvicorn", *app, *address], self.environment(
                RIVAL_DATABASE=self._database(), RIVAL_POOL_SIZE=str(POOL_SIZE)
            )
        if name == GO:
            database = f"{self._database()}?pool_max_conns={POOL_SIZE}&pool_min_conns={POOL_SIZE}"
            program = self.state / "rival-go"
            return [program, f"{LOOPBACK}:{self._ports[GO]}"], self.environment(RIVAL_DATABASE=database)
        return super().command(name)

    def spent(self, system: str) -> Mapping[str, float]:
        """Returns the CPU seconds of each process of a system so far."""
        if system == CEILING:
            return {"envoy": self.cpu("empty-envoy"), "service": self.cpu("empty-service")}
        own = ("envoy-", "product", "order") if system == SHOP else (system,)
        return {part.rstrip("-"): self.cpu(part) for part in own} | {"postgres": self.postgres_cpu()}

    def environment(self, **more: str) -> Mapping[str, str]:
        # This is the default of an installation. The benchmarks of streams log less.
        return {**super().environment(**more), "LOG_LEVEL": "INFO"}

    def _database(self) -> str:
        """Returns the database as a URL: asyncpg and pgx do not take keywords."""
        fields = conninfo_to_dict(self.postgres.conninfo(DATABASE))
        return f"postgresql://{fields['user']}:{fields['password']}@{LOOPBACK}:{fields['port']}/{DATABASE}"

    def _fill(self) -> None:
        products, orders = self._sizes
        fill_products(self.postgres.service("product"), products)
        fill_reservations(self.postgres.service("product"), products, orders)
        fill_orders(self.postgres.service("order"), products, orders, ours=True)
        with psycopg.connect(self.postgres.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        conninfo = self.postgres.conninfo(DATABASE)
        with psycopg.connect(conninfo) as connection:
            connection.execute((HERE / "schema.sql").read_bytes())
        fill_products(conninfo, products)
        fill_orders(conninfo, products, orders, ours=False)


@contextmanager
def compared_shop(products: int, orders: int, rivals: Sequence[str] = RIVALS) -> Iterator[ComparedShop]:
    """Runs the shop and these rivals until the end of the block, and then deletes their data."""
    with running(lambda state: ComparedShop(state, products, orders, rivals)) as shop:
        yield shop
