"""One of the two databases is restored from an older backup while the shop is busy: `reconcile` repairs the rest."""

import asyncio
import re
from pathlib import Path

from tests.faults.check import Row, check, check_stock_counts, versions
from tests.faults.clients import MOVED_ON, Clients
from tests.faults.shop import FaultShop, Servers, missing_orders, orders_without_stock
from tests.faults.test_faults import ORDERS, RATE, Scenario, running, settle, watchers_see

MIDDLE = 100
"""Orders that are placed when the backup is made."""

LATER = 220
"""Orders that are placed when it is restored."""


async def restored(shop: FaultShop, clients: Clients, service: str, *statements: str) -> tuple[float, float]:
    """Backs a database up and restores it later. Returns when each was done, by the event loop's clock."""
    await clients.acknowledged(MIDDLE)
    made = asyncio.get_running_loop().time()
    backup = await shop.back_up(service)
    await clients.acknowledged(LATER)
    clients.restored = True
    return made, await shop.restore(service, backup, *statements)


async def no_fault(shop: FaultShop, clients: Clients) -> float:
    raise AssertionError("these tests break the shop themselves")


async def test_order_database_restored_from_older_backup(servers: Servers, tmp_path: Path, rows: list[Row]) -> None:
    """Orders newer than the backup are gone. `reconcile` reports them and frees their stock; no others are lost."""
    scenario = Scenario("order database restored from a backup", no_fault)
    async with running(servers, tmp_path / "shop", scenario) as (shop, clients):
        shopping = asyncio.create_task(clients.shop(ORDERS, RATE))
        # As docs/operations.md says: the numbers of orders that are gone were given to their customers.
        made, ended = await restored(
            shop, clients, "order", f"SELECT setval('order_number', nextval('order_number') + {MOVED_ON})"
        )
        recovery = await clients.recovery(ended)
        await shopping
        await asyncio.sleep(7)  # the service releases the holds of orders that are gone by itself
        status, output = await shop.reconcile("--dry-run")
        assert status == 1, output
        foreseen = missing_orders(output)
        status, output = await shop.reconcile()
        assert (status, missing_orders(output)) == (1, set()), output
        assert "more than 10%" in output, "it must not change a third of all orders without --force"
        status, output = await shop.reconcile("--force")
        assert status == 0, output
        assert missing_orders(output) == foreseen
        assert len(foreseen) > 20
        assert re.search(r": \d+ released\n", output)
        await settle(shop)
        assert findings(await shop.reconcile()) == []
        async with shop.connections() as connections:
            row = await check(scenario.fault, clients, connections, recovery, made)
            there = await versions(connections)
            await check_stock_counts(clients, connections)
        rows.append(row)
        row.check()
        known = {each.id for each in clients.attempts if each.status}
        assert foreseen <= known - set(there), "each order that it reports as gone existed, and no longer does"
        assert clients.problems == []


def findings(result: tuple[int, str]) -> list[str]:
    """Returns the findings of a run that succeeded."""
    status, output = result
    assert status == 0, output
    return [line for line in output.splitlines() if line.startswith("order ")]


async def test_product_database_restored_from_older_backup(servers: Servers, tmp_path: Path, rows: list[Row]) -> None:
    """Reservations are made again where stock is left. `reconcile` reports the orders for which there is none."""
    scenario = Scenario("product database restored from a backup", no_fault)
    async with running(servers, tmp_path / "shop", scenario) as (shop, clients):
        shopping = asyncio.create_task(clients.shop(ORDERS, RATE))
        _, ended = await restored(shop, clients, "product")
        recovery = await clients.recovery(ended)
        await shopping
        status, output = await shop.reconcile("--dry-run")
        assert status == 1, output
        assert "to be reserved" in output
        status, output = await shop.reconcile("--force")
        without = orders_without_stock(output)
        assert status == bool(without), output
        for order_id in sorted(without):
            await clients.make_up_for(order_id)
        assert (await shop.reconcile())[0] == 0
        await settle(shop)
        assert findings(await shop.reconcile()) == []
        async with shop.connections() as connections:
            row = await check(scenario.fault, clients, connections, recovery)
        rows.append(row)
        row.check()
        await watchers_see(shop, clients)
        assert clients.problems == []
