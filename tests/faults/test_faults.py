"""A fault in the middle of several hundred orders: nothing is lost, oversold, doubled or leaked.

The shop recovers by itself. Each fault is a real one, at the point that it names.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.faults.alert_table import CheckAlerts
from tests.faults.check import AddRow, check, check_stock_counts, check_watchers, largest_batch, tombstones, versions
from tests.faults.clients import Clients
from tests.faults.process import OVER, crash, late, setting
from tests.faults.recorder import Recorder
from tests.faults.shop import PACE, SETTINGS, FaultShop, Servers
from tests.support.eventually import eventually
from tests.support.invariants_order import settled
from tests.support.locks import until_waiting, waiting_statements

ORDERS = 400
"""Clients in all."""

RATE = 60.0
"""Clients that arrive in a second."""

MIDDLE = 120
"""Orders that are placed when the fault strikes."""

CROWD = 150
"""More clients that arrive at once."""

CARTS = 5
"""Carts that are locked while they are ordered, and as many while they are merged. As many expire."""

STOCKS = (2_000, 2_000, 2_000, 2_000, 60, 10_000)
"""The pieces of each product. The last but one runs out, and the last is for the orders that measure the recovery."""

EXPIRED_CARTS = """
    INSERT INTO cart (secret_hash, items, expire_time)
    SELECT sha256(n::text::bytea), '[{"product_id": "a", "quantity": 1}]', now() - interval '1 day'
    FROM generate_series(1, 1000) AS n
    """


@dataclass(frozen=True)
class Scenario:
    fault: str
    strike: Callable[[FaultShop, Clients], Awaitable[float]]
    """Breaks the shop, or waits until it is broken. Returns when the fault was over, by the event loop's clock."""
    faults: dict[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = SETTINGS
    timeout: float = 3.0
    """Seconds that a client's call may take."""
    noticed: bool = False
    """Whether some client must have had to try again."""
    expired: bool = False
    """Whether some client must be told ORDER_EXPIRED."""
    retried: bool = False
    """Whether some checkout of a cart must have had to be tried again."""
    stale: bool = False
    """Whether some cart must have been shown without what the catalogue says."""
    tombstones: bool = False
    """Whether there must be holds whose orders never came."""
    batches: bool = False
    """Whether some must have got their stock in large batches."""
    alerts: tuple[str, ...] = ()
    """The alerts that fire. None do where the shop recovers first."""


def restarted(*names: str) -> Callable[[FaultShop, Clients], Awaitable[float]]:
    async def strike(shop: FaultShop, clients: Clients) -> float:
        return await shop.restart_of(*names)

    return strike


def crashed(service: str) -> Callable[[FaultShop, Clients], Awaitable[float]]:
    async def strike(shop: FaultShop, clients: Clients) -> float:
        await clients.acknowledged(MIDDLE)
        await shop.servers.crash(service)
        return asyncio.get_running_loop().time()

    return strike


def hung(connection: str) -> Callable[[FaultShop, Clients], Awaitable[float]]:
    async def strike(shop: FaultShop, clients: Clients) -> float:
        await clients.acknowledged(MIDDLE)
        assert shop.proxies[connection].hang() > 0
        return asyncio.get_running_loop().time()

    return strike


def killed_in_batches(
    kill: Callable[[FaultShop], Awaitable[float]],
) -> Callable[[FaultShop, Clients], Awaitable[float]]:
    """Kills a process in the middle of large batches: a transaction locks the products, and many clients come."""

    async def strike(shop: FaultShop, clients: Clients) -> float:
        await clients.acknowledged(MIDDLE)
        postgres = shop.servers.of["product"].postgres
        conninfo = make_conninfo(shop.databases["product"], port=postgres.port)
        ended = math.nan
        with suppress(psycopg.OperationalError):  # if PostgreSQL is killed, this connection ends
            async with await psycopg.AsyncConnection.connect(conninfo) as other:
                await other.execute("UPDATE product SET stock = stock")
                await until_waiting(conninfo, 2)
                clients.crowd(CROWD)
                await until_waiting(conninfo, 4)
                ended = await kill(shop)
                await other.rollback()
        assert not math.isnan(ended), "the process was not killed"
        return ended

    return strike


async def kill_product(shop: FaultShop) -> float:
    shop.children["product"].process.kill()
    return await shop.restart_of("product")


async def kill_product_database(shop: FaultShop) -> float:
    await shop.servers.crash("product")
    return asyncio.get_running_loop().time()


async def killed_at_carts(shop: FaultShop, clients: Clients) -> float:
    """Kills all replicas while a statement of a checkout and one of a merge wait for a cart's lock."""
    await clients.acknowledged(MIDDLE)
    postgres = shop.servers.of["order"].postgres
    conninfo = make_conninfo(shop.databases["order"], port=postgres.port)
    replicas = shop.names("order")
    shoppers = clients.shoppers
    ordered = [await shoppers.fill(items) for items in clients.new_carts(CARTS)]
    merged = [(await shoppers.fill(items), await shoppers.own_cart(items)) for items in clients.new_carts(CARTS)]
    async with (
        asyncio.TaskGroup() as group,
        await psycopg.AsyncConnection.connect(conninfo) as other,
    ):
        ids = [each.id for each in (*ordered, *(guest for guest, _ in merged))]
        await other.execute("SELECT FROM cart WHERE id = ANY (%s::uuid[]) FOR UPDATE", (ids,))
        for each in ordered:
            group.create_task(shoppers.buy_basket(each))
        for guest, own in merged:
            group.create_task(shoppers.buy_basket(guest, own))

        async def wait() -> bool:
            # PostgreSQL shows only the first thousand bytes of a statement.
            waiting = " ".join(await waiting_statements(conninfo))
            return "cart_etag uuid" in waiting and ", merged_into FROM cart" in waiting

        await eventually(wait)
        for name in replicas:
            shop.kill(name)
        await other.rollback()
        return await shop.restart_of(*replicas)


async def killed_at_expiry(shop: FaultShop, clients: Clients) -> float:
    """Kills a replica between two batches of expired carts, while customers start again whose carts have expired."""
    await clients.acknowledged(MIDDLE)
    shoppers = clients.shoppers
    expiring = [await shoppers.own_cart(items) for items in clients.new_carts(CARTS)]
    async with shop.connections() as connections, asyncio.TaskGroup() as group:
        orders = connections["order"]
        await orders.execute(EXPIRED_CARTS)
        ids = [each.id for each in expiring]
        await orders.execute("UPDATE cart SET expire_time = now() WHERE id = ANY (%s::uuid[])", (ids,))
        for each in expiring:
            group.create_task(shoppers.start_again(each))
        ended = await shop.restart_of("order-0")

        async def purged() -> bool:
            left = "SELECT FROM cart WHERE expire_time <= now() LIMIT 1"
            return not await (await orders.execute(left)).fetchall()

        await eventually(purged)
        return ended


async def no_longer_late(shop: FaultShop, clients: Clients) -> float:
    return await shop.wait_for_log("product", OVER)


SCENARIOS = [
    Scenario(
        "order killed between reserve and insert",
        restarted("order-0"),
        {"order-0": crash("order-reserved", after=40, together=12)},
        tombstones=True,
    ),
    Scenario(
        "order killed between insert and answer",
        restarted("order-0"),
        {"order-0": crash("order-inserted", after=40, together=12)},
        noticed=True,
    ),
    Scenario(
        "order killed between reserve and a cart's order",
        restarted("order-0"),
        {"order-0": crash("cart-reserved", after=40, together=12)},
        tombstones=True,
        retried=True,
    ),
    Scenario(
        "order killed before the answers of checkouts and merges",
        restarted("order-0", "order-1"),
        {
            "order-0": crash("cart-ordered", after=40, together=12),
            "order-1": crash("cart-merged", after=15, together=4),
        },
        noticed=True,
        retried=True,
    ),
    Scenario(
        "order killed between batches of expired carts",
        killed_at_expiry,
        {"order-0": crash("carts-purged", after=2, together=1)},
        (
            *SETTINGS,
            setting("order.jobs.expired_carts.PURGE_INTERVAL", 0.2),
            setting("order.jobs.expired_carts.PURGE_BATCH_SIZE", 20),
        ),
    ),
    Scenario("order killed in the statements of checkouts and merges", killed_at_carts, noticed=True, retried=True),
    Scenario(
        "relay killed between claim and send",
        restarted("order-0"),
        {"order-0": crash("relay-claimed", after=2, together=1)},
    ),
    Scenario(
        "relay killed between send and delete",
        restarted("order-0"),
        {"order-0": crash("relay-sent", after=2, together=1)},
    ),
    Scenario(
        "product killed between reserve and answer",
        restarted("product"),
        {"product": crash("product-reserved", after=100, together=6)},
        noticed=True,
    ),
    Scenario(
        "product killed in the middle of large batches", killed_in_batches(kill_product), noticed=True, batches=True
    ),
    Scenario(
        "product's PostgreSQL killed in the middle of large batches",
        killed_in_batches(kill_product_database),
        noticed=True,
        batches=True,
        alerts=("ShopDatabaseDown",),
    ),
    Scenario("order's PostgreSQL killed", crashed("order"), noticed=True, retried=True, alerts=("ShopDatabaseDown",)),
    Scenario(
        "product's PostgreSQL killed",
        crashed("product"),
        noticed=True,
        retried=True,
        stale=True,
        alerts=("ShopDatabaseDown",),
    ),
    Scenario("order and its database half open", hung("order database"), noticed=True),
    Scenario("product and its database half open", hung("product database"), noticed=True),
    Scenario("order and product half open", hung("product"), noticed=True, retried=True, stale=True),
    Scenario(
        "product later than order waits",
        no_longer_late,
        {"product": late("product-reserved", after=100, calls=8, seconds=7)},
        timeout=10,
        noticed=True,
    ),
    Scenario(
        "product later than a hold lives",
        no_longer_late,
        {"product": late("product-reserved", after=100, calls=8, seconds=6)},
        (
            setting("order.stock.HOLD_TTL", 2),
            setting("order.stock.RESERVE_TIMEOUT", 9.0),
            setting("order.jobs.expired_holds.HOLD_POLL_INTERVAL", 0.5),
        ),
        timeout=10,
        expired=True,
    ),
]


@asynccontextmanager
async def running(
    servers: Servers, state: Path, scenario: Scenario, check_alerts: CheckAlerts
) -> AsyncIterator[tuple[FaultShop, Clients]]:
    """A shop, its clients and their products. At the end it checks which alerts have fired."""
    async with AsyncExitStack() as stack:
        databases = {
            service: stack.enter_context(servers.of[service].database(service)) for service in ("product", "order")
        }
        shop = await stack.enter_async_context(
            FaultShop(state, servers, databases, scenario.faults, scenario.settings).running()
        )
        clients = await stack.enter_async_context(
            Clients(shop.product, shop.orders, shop.issuer, timeout=scenario.timeout)
        )
        await clients.stock_up(STOCKS)
        recorder = await stack.enter_async_context(Recorder(shop.targets.values(), PACE).running())
        yield shop, clients
    check_alerts(scenario.fault, recorder.recording, scenario.alerts)


async def settle(shop: FaultShop, seconds: float = 40) -> None:
    """Waits until nothing is under way. If something stays, the counts of `check` show it."""
    async with shop.connections() as connections:
        try:
            await eventually(lambda: settled(connections["order"], connections["product"]), seconds)
        except AssertionError:
            return


async def watchers_see(shop: FaultShop, clients: Clients) -> None:
    """Checks that each watcher has seen each version once."""
    async with shop.connections() as connections:
        there = await versions(connections)

        watched = [attempt for attempt in clients.attempts if attempt.watched]
        with suppress(AssertionError):
            await eventually(lambda: all(len(attempt.seen) >= there[attempt.id] for attempt in watched), 15)
        await asyncio.sleep(0.5)  # a second copy of an event would arrive now
        assert check_watchers(clients, there) > 20


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.fault)
async def test_shop_recovers_from_fault(
    servers: Servers, tmp_path: Path, add_row: AddRow, check_alerts: CheckAlerts, scenario: Scenario
) -> None:
    async with running(servers, tmp_path / "shop", scenario, check_alerts) as (shop, clients):
        shopping = asyncio.create_task(clients.shop(ORDERS, RATE))
        ended = await scenario.strike(shop, clients)
        recovery = await clients.recovery(ended)
        await shopping
        await settle(shop)
        async with shop.connections() as connections:
            row = await check(scenario.fault, clients, connections, recovery)
            add_row(row)
            await check_stock_counts(clients, connections)
            assert bool(await tombstones(connections)) or not scenario.tombstones
            assert await largest_batch(connections) > 10 or not scenario.batches
        row.check()
        await watchers_see(shop, clients)
        assert clients.problems == []
        assert clients.told or not scenario.noticed
        assert clients.shoppers.retried or not scenario.retried
        assert clients.shoppers.stale or not scenario.stale
        refusals = {each.refusal for each in clients.attempts}
        assert "INSUFFICIENT_STOCK" in refusals
        assert ("ORDER_EXPIRED" in refusals and clients.shoppers.expired) or not scenario.expired
