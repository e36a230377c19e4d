"""A shop that is broken in the middle of several hundred orders: nothing is lost, oversold, doubled or leaked, and it
recovers with nobody's help. Each fault is a real one, at the point that it names."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.faults.check import Row, check, check_stock_counts, check_watchers, largest_batch, tombstones, versions
from tests.faults.clients import Clients
from tests.faults.process import OVER
from tests.faults.shop import SETTINGS, FaultShop, Servers
from tests.support.invariants_order import settled
from tests.support.locks import until_waiting
from tests.support.order import eventually

ORDERS = 400
"""Clients that come."""

RATE = 60.0
"""Clients a second."""

MIDDLE = 120
"""Orders that are placed when the fault comes."""

CROWD = 150
"""Clients that come at once."""

STOCKS = (2_000, 2_000, 2_000, 2_000, 60, 10_000)
"""The pieces of each product: of the last but one there are too few, and the last is for the probes."""


@dataclass(frozen=True)
class Scenario:
    fault: str
    strike: Callable[[FaultShop, Clients], Awaitable[float]]
    """Breaks the shop, or waits until it is broken, and answers when the fault was over, by the loop's clock."""
    faults: dict[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = SETTINGS
    timeout: float = 3.0
    """Seconds that a client's call may take."""
    noticed: bool = False
    """Whether some client must have had to try again."""
    expired: bool = False
    """Whether some client must be told ORDER_EXPIRED."""
    tombstones: bool = False
    """Whether there must be holds whose orders never came."""
    batches: bool = False
    """Whether some must have got their stock in large batches."""


def restarted(name: str) -> Callable[[FaultShop, Clients], Awaitable[float]]:
    async def strike(shop: FaultShop, clients: Clients) -> float:
        return await shop.restart_of(name)

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
    """Kills while large batches for stock are under way: somebody else has the products locked, and a crowd comes."""

    async def strike(shop: FaultShop, clients: Clients) -> float:
        await clients.acknowledged(MIDDLE)
        postgres = shop.servers.of["product"].postgres
        conninfo = make_conninfo(shop.databases["product"], port=postgres.port)
        with suppress(psycopg.OperationalError):  # where PostgreSQL is killed, this connection is
            async with await psycopg.AsyncConnection.connect(conninfo) as other:
                await other.execute("UPDATE product SET stock = stock")
                await until_waiting(conninfo, 2)
                clients.crowd(CROWD)
                await until_waiting(conninfo, 4)
                ended = await kill(shop)
                await other.rollback()
        return ended

    return strike


async def kill_product(shop: FaultShop) -> float:
    shop.children["product"].process.kill()
    return await shop.restart_of("product")


async def kill_product_database(shop: FaultShop) -> float:
    await shop.servers.crash("product")
    return asyncio.get_running_loop().time()


async def late(shop: FaultShop, clients: Clients) -> float:
    return await shop.said("product", OVER)


SCENARIOS = [
    Scenario(
        "order killed between reserve and insert",
        restarted("order-0"),
        {"order-0": "crash:order-reserved:40:12"},
        tombstones=True,
    ),
    Scenario(
        "order killed between insert and answer",
        restarted("order-0"),
        {"order-0": "crash:order-inserted:40:12"},
        noticed=True,
    ),
    Scenario("relay killed between claim and send", restarted("order-0"), {"order-0": "crash:relay-claimed:2:1"}),
    Scenario("relay killed between send and delete", restarted("order-0"), {"order-0": "crash:relay-sent:2:1"}),
    Scenario(
        "product killed between reserve and answer",
        restarted("product"),
        {"product": "crash:product-reserved:100:6"},
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
    ),
    Scenario("order's PostgreSQL killed", crashed("order"), noticed=True),
    Scenario("product's PostgreSQL killed", crashed("product"), noticed=True),
    Scenario("order and its database half open", hung("order database"), noticed=True),
    Scenario("product and its database half open", hung("product database"), noticed=True),
    Scenario("order and product half open", hung("product"), noticed=True),
    Scenario(
        "product later than order waits",
        late,
        {"product": "late:product-reserved:100:8:7"},
        timeout=10,
        noticed=True,
    ),
    Scenario(
        "product later than a hold lives",
        late,
        {"product": "late:product-reserved:100:8:6"},
        (
            "order.stock.HOLD_TTL=2",
            "order.stock.RESERVE_TIMEOUT=9.0",
            "order.jobs.expired_holds.HOLD_POLL_INTERVAL=0.5",
        ),
        timeout=10,
        expired=True,
    ),
]


@asynccontextmanager
async def running(servers: Servers, state: Path, scenario: Scenario) -> AsyncIterator[tuple[FaultShop, Clients]]:
    """A shop, its clients and their products."""
    async with AsyncExitStack() as stack:
        databases = {
            service: stack.enter_context(servers.of[service].database(service)) for service in ("product", "order")
        }
        shop = await stack.enter_async_context(
            FaultShop(state, servers, databases, scenario.faults, scenario.settings).running()
        )
        clients = await stack.enter_async_context(Clients(shop.product, shop.orders, timeout=scenario.timeout))
        await clients.stock_up(STOCKS)
        yield shop, clients


async def settle(shop: FaultShop, seconds: float = 40) -> None:
    """Waits until nothing is under way any more. Where something stays, the counts say what."""
    async with shop.connections() as connections:
        try:
            await eventually(lambda: settled(connections["order"], connections["product"]), seconds)
        except AssertionError:
            return


async def watchers_see(shop: FaultShop, clients: Clients) -> None:
    """Each watcher has each version once."""
    async with shop.connections() as connections:
        there = await versions(connections)

        async def seen() -> bool:
            return all(len(each.seen) >= there[each.id] for each in clients.attempts if each.watched)

        with suppress(AssertionError):
            await eventually(seen, 15)
        await asyncio.sleep(0.5)  # what would come twice comes now
        assert check_watchers(clients, there) > 20


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.fault)
async def test_a_fault_in_the_middle_of_it_all(
    servers: Servers, tmp_path: Path, rows: list[Row], scenario: Scenario
) -> None:
    async with running(servers, tmp_path / "shop", scenario) as (shop, clients):
        shopping = asyncio.create_task(clients.shop(ORDERS, RATE))
        ended = await scenario.strike(shop, clients)
        recovery = await clients.recovery(ended)
        await shopping
        await settle(shop)
        async with shop.connections() as connections:
            row = await check(scenario.fault, clients, connections, recovery)
            rows.append(row)
            await check_stock_counts(clients, connections)
            assert bool(await tombstones(connections)) or not scenario.tombstones
            assert await largest_batch(connections) > 20 or not scenario.batches
        row.check()
        await watchers_see(shop, clients)
        assert clients.problems == []
        assert clients.told or not scenario.noticed
        refusals = {each.refusal for each in clients.attempts}
        assert "INSUFFICIENT_STOCK" in refusals
        assert ("ORDER_EXPIRED" in refusals) or not scenario.expired
