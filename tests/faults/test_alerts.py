"""A fault that lasts: its alert fires, and no other. Each fault is a real one.

A second counts as a minute here (see `alerts.py`), so a fault that lasts for a quarter of an hour takes 15 seconds.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from bench.fleet import until_serving
from local.edge import CONNECTION
from local.secret_files import secret_folder
from local.settings import LOOPBACK
from runtime.access.credential import Credential
from runtime.client import channel
from tests.faults.alert_table import CheckAlerts
from tests.faults.edge_shop import PACE, EdgeShop
from tests.faults.process import blocking, broken, late
from tests.faults.recorder import Pace, Recorder
from tests.faults.shop import PACE as FAULTS_PACE
from tests.faults.shop import Servers
from tests.faults.test_faults import EXPIRED_CARTS
from tests.faults.visitors import WATCHERS, Visitors
from tests.support.access import open_access
from tests.support.oidc import Provider, oidc_provider

CALM = 3
"""Minutes before the fault."""

ALWAYS = 1_000_000

STREAMS = 11
"""Browsers that the sidecar serves at a time, in the row about that limit. One is left."""

FLOOD = 8
"""Clients that ask as fast as they can, in the row about the limit of requests."""


async def minutes(number: float) -> None:
    """Waits, by the rules' time."""
    await asyncio.sleep(number * 60 / PACE.stretch)


Strike = Callable[[EdgeShop, Visitors], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    fault: str
    alerts: tuple[str, ...]
    strike: Strike
    """Breaks the shop for some minutes."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Faults that the processes have from the beginning."""
    edge: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    crowd: int = 2
    """Customers at the edge, and as many of staff."""
    provider: bool = False
    """Whether the issuer of tokens is a server."""
    tls: bool = False
    pace: Pace = PACE
    stays: int = 0
    """Minutes for which all stays as it is at the end."""


def lasting(number: float) -> Strike:
    """Returns what only waits: the fault is in a process from the beginning."""

    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        await minutes(number)

    return strike


def ended(*names: str, for_minutes: float) -> Strike:
    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        for name in names:
            shop.end(name)
        await minutes(for_minutes)

    return strike


def stopped(*names: str, for_minutes: float) -> Strike:
    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        for name in names:
            shop.stop_process(name)
        await minutes(for_minutes)

    return strike


async def crashed_again_and_again(shop: EdgeShop, visitors: Visitors) -> None:
    for _ in range(4):
        shop.kill("order-1")
        await shop.restart_of("order-1")
        await until_serving(f"{LOOPBACK}:{shop.orders[1]}", "shop.order.v1.OrderService")
        await minutes(1)


def refused(*connections: str, for_minutes: float) -> Strike:
    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        for each in connections:
            shop.proxies[each].refuse()
        await minutes(for_minutes)

    return strike


def silent(*connections: str, for_minutes: float) -> Strike:
    """Nothing comes back on old and new connections, as if a firewall dropped it."""

    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        for each in connections:
            shop.proxies[each].silent = True
            shop.proxies[each].hang()
        await minutes(for_minutes)

    return strike


def slow(connection: str, seconds: float, *, for_minutes: float) -> Strike:
    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        shop.proxies[connection].lateness = seconds
        await minutes(for_minutes)

    return strike


def database_ended(service: str, *, for_minutes: float) -> Strike:
    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        postgres = shop.servers.of[service].postgres
        await shop.servers.call(postgres.kill)
        try:
            await minutes(for_minutes)
        finally:
            await shop.servers.call(lambda: postgres.start(postgres.port))

    return strike


@asynccontextmanager
async def superuser(shop: EdgeShop, service: str) -> AsyncIterator[tuple[psycopg.AsyncConnection[Any], sql.Identifier]]:
    """A connection to a service's server, and the name of the service's database."""
    name = str(conninfo_to_dict(shop.databases[service])["dbname"])
    postgres = shop.servers.of[service].postgres
    async with await psycopg.AsyncConnection.connect(postgres.conninfo(name), autocommit=True) as connection:
        yield connection, sql.Identifier(name)


TERMINATE_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    """


def read_only(service: str, *, for_minutes: float) -> Strike:
    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        async with superuser(shop, service) as (connection, name):
            await connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
            await connection.execute(TERMINATE_OTHERS)
            await minutes(for_minutes)

    return strike


def full(service: str, table: str, *, for_minutes: float) -> Strike:
    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        async with superuser(shop, service) as (connection, _):
            await connection.execute(
                "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$"
            )
            await connection.execute(
                sql.SQL("CREATE TRIGGER no_room BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION no_room()").format(
                    sql.Identifier(table)
                )
            )
            await minutes(for_minutes)

    return strike


def locked(service: str, table: str, *, for_minutes: float) -> Strike:
    """A transaction that somebody left open locks a table, and soon all connections wait for it."""

    async def strike(shop: EdgeShop, visitors: Visitors) -> None:
        async with superuser(shop, service) as (connection, _), connection.transaction():
            await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
            await minutes(for_minutes)

    return strike


async def slots_taken(shop: EdgeShop, visitors: Visitors) -> None:
    """PostgreSQL ends the connections, and then has none for the service: "too many connections for database"."""
    async with superuser(shop, "order") as (connection, name):
        await connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(name))
        await connection.execute(TERMINATE_OTHERS)
        await minutes(8)


async def schema_missing(shop: EdgeShop, visitors: Visitors) -> None:
    """A release is there before its migration."""
    async with superuser(shop, "order") as (connection, _):
        await connection.execute(
            "DELETE FROM schema_migration WHERE version = (SELECT max(version) FROM schema_migration)"
        )
    await minutes(6)


async def hold_left(shop: EdgeShop, visitors: Visitors) -> None:
    """Somebody reserves stock, and no order comes."""
    credentials = secret_folder(shop.credentials)
    metadata = Credential(replace(open_access(), credentials=credentials)).metadata()
    async with channel(f"ipv4:{shop.product}") as to_product:
        stub: Any = stock_pb2_grpc.StockServiceStub(to_product)
        request = stock_pb2.ReserveStockRequest(
            reservation_id=str(uuid4()), items=[stock_pb2.StockItem(product_id=visitors.product_id, quantity=1)]
        )
        request.ttl.FromSeconds(1)
        await stub.ReserveStock(request, metadata=metadata, timeout=5)
    await minutes(16)


async def carts_expired(shop: EdgeShop, visitors: Visitors) -> None:
    async with shop.connections() as connections:
        await connections["order"].execute(EXPIRED_CARTS)
    await minutes(15)


async def issuer_away(shop: EdgeShop, visitors: Visitors) -> None:
    assert isinstance(shop.issuer, Provider)
    await asyncio.to_thread(shop.issuer.go_away)
    await minutes(14)


async def many_streams(shop: EdgeShop, visitors: Visitors) -> None:
    async with AsyncExitStack() as stack, httpx.AsyncClient(base_url=shop.url, timeout=30) as http:
        path = f"/api/orders/stream?order_id={visitors.last_order}"
        for _ in range(STREAMS - 1 - WATCHERS):
            await stack.enter_async_context(http.stream("GET", path, headers=visitors.headers))
        await minutes(8)


async def many_connections(shop: EdgeShop, visitors: Visitors) -> None:
    def connect() -> None:
        for _ in range(shop.edge_settings().memory // CONNECTION * 85 // 100):
            stack.enter_context(socket.create_connection(shop.listens_at))

    with ExitStack() as stack:
        await asyncio.to_thread(connect)
        await minutes(6)


async def flood(shop: EdgeShop, visitors: Visitors) -> None:
    """One client, of another address than the customers, asks as often as it can."""
    transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx.AsyncClient(base_url=shop.url, transport=transport, timeout=5) as http:

        async def ask() -> None:
            while True:
                await http.get("/api/v1/categories")

        tasks = [asyncio.create_task(ask()) for _ in range(FLOOD)]
        await minutes(7)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


SCENARIOS = [
    Scenario("nothing is broken", (), lasting(16), crowd=6),
    # --- processes
    Scenario("product is gone", ("ShopComponentDown",), ended("product", for_minutes=8)),
    Scenario("product hangs", ("ShopComponentDown",), stopped("product", for_minutes=8)),
    Scenario("all of order are gone", ("ShopComponentDown",), ended("order-0", "order-1", for_minutes=8)),
    Scenario("the sidecar is gone", ("ShopComponentDown",), ended("sse", for_minutes=8)),
    Scenario("Envoy is gone", ("ShopComponentDown",), ended("envoy", for_minutes=8)),
    Scenario("one of order hangs", ("ShopTargetDown",), stopped("order-1", for_minutes=9)),
    # A start takes seconds, which must not be as many minutes.
    Scenario("one of order crashes again and again", ("ShopRestarting",), crashed_again_and_again, pace=FAULTS_PACE),
    Scenario("order's schema is too old", ("ShopNotReady",), schema_missing),
    Scenario(
        "one of order cannot reach the database",
        ("ShopReplicaNotReady",),
        refused("order-1 and its database", for_minutes=15),
    ),
    Scenario(
        "order computes for too long",
        ("ShopEventLoopBlocked",),
        lasting(12),
        {"order-0": blocking("order-read", milliseconds=700)},
    ),
    # --- databases
    Scenario("order's PostgreSQL is gone", ("ShopDatabaseDown",), database_ended("order", for_minutes=8)),
    Scenario("product's PostgreSQL is gone", ("ShopDatabaseDown",), database_ended("product", for_minutes=8)),
    Scenario(
        "order's database responds no more",
        ("ShopDatabaseDown",),
        silent("order database", "order-1 and its database", for_minutes=12),
        variables={"DATABASE_TIMEOUT": "0.5"},
    ),
    Scenario("order's PostgreSQL has no connection left", ("ShopDatabaseDown",), slots_taken),
    Scenario("order's database is read-only", ("ShopDatabaseReadOnly",), read_only("order", for_minutes=9)),
    Scenario("product's database is read-only", ("ShopDatabaseReadOnly",), read_only("product", for_minutes=9)),
    Scenario("the disk of order's database is full", ("ShopDatabaseReadOnly",), full("order", "orders", for_minutes=9)),
    Scenario(
        "a transaction locks the orders",
        ("ShopDatabaseSaturated",),
        locked("order", "orders", for_minutes=10),
        variables={"DATABASE_TIMEOUT": "0.5"},
    ),
    Scenario(
        "a transaction locks the products",
        ("ShopDatabaseSaturated",),
        locked("product", "product", for_minutes=10),
        variables={"DATABASE_TIMEOUT": "0.5"},
    ),
    Scenario(
        "order's database is slow", ("ShopDatabaseSaturated",), slow("order database", 0.8, for_minutes=9), crowd=12
    ),
    # --- calls
    Scenario("order cannot reach product", ("ShopProductUnreachable",), refused("product", for_minutes=8)),
    Scenario("product responds to order no more", ("ShopProductUnreachable",), silent("product", for_minutes=12)),
    Scenario(
        "product is slow",
        ("ShopSlow",),
        lasting(21),
        {"product": late("products-listed", after=30, calls=ALWAYS, seconds=2)},
        crowd=12,
    ),
    Scenario("a handler of order fails", ("ShopErrors",), lasting(9), {"order-0": broken("order-read", one_in=1)}),
    Scenario(
        "a handler of order fails now and then",
        ("ShopBug",),
        lasting(12),
        {"order-0": broken("order-read", one_in=15)},
        crowd=4,
    ),
    # --- background work
    Scenario(
        "the relay hangs",
        ("ShopOutboxStuck",),
        lasting(12),
        dict.fromkeys(("order-0", "order-1"), late("relay-claimed", after=0, calls=ALWAYS, seconds=3_600)),
    ),
    Scenario(
        "the reaper of holds hangs",
        ("ShopHoldsOverdue",),
        hold_left,
        dict.fromkeys(("order-0", "order-1"), late("holds-reaped", after=0, calls=ALWAYS, seconds=3_600)),
    ),
    Scenario(
        "a tailer hangs",
        ("ShopTailerStalled",),
        lasting(11),
        {"order-1": late("log-read", after=1, calls=ALWAYS, seconds=3_600)},
    ),
    Scenario(
        "the purger of carts hangs",
        ("ShopCartsNotPurged",),
        carts_expired,
        dict.fromkeys(("order-0", "order-1"), late("carts-purged-next", after=0, calls=ALWAYS, seconds=3_600)),
    ),
    Scenario(
        "the purger of carts fails",
        ("ShopJobFailing",),
        carts_expired,
        dict.fromkeys(("order-0", "order-1"), broken("carts-purged-next", one_in=1)),
    ),
    Scenario("the issuer of tokens is gone", ("ShopSigningKeysStale",), issuer_away, provider=True),
    # --- streams and the edge
    Scenario("the sidecar cannot reach order", ("ShopFeedDown",), refused("sidecar and order", for_minutes=8)),
    Scenario(
        "nearly as many streams as there may be",
        ("ShopStreamsNearLimit",),
        many_streams,
        variables={"SSE_MAX_STREAMS": str(STREAMS)},
    ),
    Scenario("Envoy cannot reach order", ("ShopEdgeErrors",), refused("edge and order", for_minutes=10)),
    Scenario(
        "Envoy has hardly any connections left",
        ("ShopEdgeOverloaded",),
        many_connections,
        edge={"memory": 96 * 1024**2},
    ),
    Scenario(
        "one client floods the edge", ("ShopRateLimited",), flood, edge={"rate_limit": 10, "rate_burst": 20}, crowd=1
    ),
    Scenario("the certificate is not renewed", ("ShopCertificateExpiring",), lasting(3), tls=True, stays=65),
]


@contextmanager
def issuer(scenario: Scenario) -> Any:
    if not scenario.provider:
        yield None
        return
    with oidc_provider() as provider:
        yield provider


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.fault)
async def test_fault_fires_its_alert_alone(
    servers: Servers, tmp_path: Path, check_alerts: CheckAlerts, scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    edge = {**scenario.edge, **({"tls": request.getfixturevalue("certificate")} if scenario.tls else {})}
    async with AsyncExitStack() as stack:
        databases = {
            service: stack.enter_context(servers.of[service].database(service)) for service in ("product", "order")
        }
        tokens = stack.enter_context(issuer(scenario))
        shop = EdgeShop(
            tmp_path / "shop",
            servers,
            databases,
            scenario.faults,
            (),
            edge=edge,
            variables=scenario.variables,
            issuer=tokens,
        )
        await stack.enter_async_context(shop.running())
        recorder = await stack.enter_async_context(Recorder(shop.targets.values(), scenario.pace).running())
        visitors = await stack.enter_async_context(Visitors(shop, scenario.crowd).running())
        began = 0
        if not (scenario.faults or scenario.tls):
            await minutes(CALM)
            began = recorder.recording.ticks
        await scenario.strike(shop, visitors)
    print(visitors.outcomes)
    check_alerts(scenario.fault, recorder.recording, scenario.alerts, began=began, stays=scenario.stays * 60)
