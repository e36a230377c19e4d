"""One of the two databases is restored from an older backup, while the shop is busy: `reconcile` says what came of it
and repairs it."""

import asyncio
import re
from pathlib import Path

from tests.faults.check import Row, check, check_stock_counts, versions
from tests.faults.clients import MOVED_ON, Clients
from tests.faults.shop import FaultShop, Servers, gone, short
from tests.faults.test_faults import ORDERS, RATE, Scenario, running, settle, watchers_see

MIDDLE = 100
"""Orders that are placed when the backup is made."""

LATER = 220
"""Orders that are placed when it is restored."""


async def restored(shop: FaultShop, clients: Clients, service: str, *statements: str) -> tuple[float, float]:
    """Backs a database up and restores it later; answers when each was done."""
    await clients.acknowledged(MIDDLE)
    made = asyncio.get_running_loop().time()
    backup = await shop.back_up(service)
    await clients.acknowledged(LATER)
    clients.restored = True
    return made, await shop.restore(service, backup, *statements)


async def never(shop: FaultShop, clients: Clients) -> float:
    raise AssertionError("these tests break the shop themselves")


async def test_the_order_database_is_restored_from_an_older_backup(
    servers: Servers, tmp_path: Path, rows: list[Row]
) -> None:
    """Orders newer than it are gone, and it is said which, and which stock that frees; nothing else is missing."""
    scenario = Scenario("order database restored from a backup", never)
    async with running(servers, tmp_path / "shop", scenario) as (shop, clients):
        shopping = asyncio.create_task(clients.shop(ORDERS, RATE))
        # As docs/operations.md says: the numbers of orders that are gone were given to their customers.
        made, ended = await restored(
            shop, clients, "order", f"SELECT setval('order_number', nextval('order_number') + {MOVED_ON})"
        )
        recovery = await clients.recovery(ended)
        await shopping
        await asyncio.sleep(7)  # holds of orders that are gone: the service gives them up by itself
        status, said = await shop.reconcile("--dry-run")
        assert status == 1, said
        foreseen = gone(said)
        status, said = await shop.reconcile()
        assert (status, gone(said)) == (1, set()), said
        assert "more than 10%" in said, "a third of all orders is more than it changes unasked"
        status, said = await shop.reconcile("--force")
        assert status == 0, said
        assert gone(said) == foreseen
        assert len(foreseen) > 20
        assert re.search(r": \d+ released\n", said)
        await settle(shop)
        assert findings(await shop.reconcile()) == []
        async with shop.connections() as connections:
            row = await check(scenario.fault, clients, connections, recovery, made)
            there = await versions(connections)
            await check_stock_counts(clients, connections)
        rows.append(row)
        row.check()
        known = {each.id for each in clients.attempts if each.status}
        assert foreseen <= known - set(there), "what it says is gone was an order, and is none"
        assert clients.problems == []


def findings(answer: tuple[int, str]) -> list[str]:
    """What a run that ended well has found."""
    status, said = answer
    assert status == 0, said
    return [line for line in said.splitlines() if line.startswith("order ")]


async def test_the_product_database_is_restored_from_an_older_backup(
    servers: Servers, tmp_path: Path, rows: list[Row]
) -> None:
    """Reservations are made again where stock is left, and people are told of the orders for which there is none."""
    scenario = Scenario("product database restored from a backup", never)
    async with running(servers, tmp_path / "shop", scenario) as (shop, clients):
        shopping = asyncio.create_task(clients.shop(ORDERS, RATE))
        _, ended = await restored(shop, clients, "product")
        recovery = await clients.recovery(ended)
        await shopping
        status, said = await shop.reconcile("--dry-run")
        assert status == 1, said
        assert "to be reserved" in said
        status, said = await shop.reconcile("--force")
        without = short(said)
        assert status == bool(without), said
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
