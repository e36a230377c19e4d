"""One of the two databases is restored from an older backup while the shop is busy: `reconcile` repairs the rest."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults.alert_table import CheckAlerts
from tests.faults.attempts import MOVED_ON, Attempt
from tests.faults.check import AddRow, check, check_stock_counts, versions
from tests.faults.clients import Clients
from tests.faults.shop import FaultShop, Servers, missing_orders, orders_without_stock
from tests.faults.shoppers import Basket
from tests.faults.test_faults import ORDERS, RATE, Scenario, running, settle, watchers_see
from tests.support.invariants_cart import pieces_in_carts

MIDDLE = 100
"""Orders that are placed when the backup is made."""

LATER = 80
"""Orders that are placed between the backup and its restore."""

CARTS = 10
"""Carts that are filled before the backup and ordered after it."""


async def nothing() -> None:
    pass


async def restored(
    shop: FaultShop,
    clients: Clients,
    service: str,
    *statements: str,
    after_backup: Callable[[], Awaitable[object]] = nothing,
) -> tuple[float, float]:
    """Backs a database up and restores it later, while clients come.

    Returns:
        When the backup was made, by the event loop's clock, and the seconds that the recovery took.
    """
    first = asyncio.create_task(clients.shop(ORDERS // 2, RATE))
    await clients.acknowledged(MIDDLE)
    made = asyncio.get_running_loop().time()
    backup = await shop.back_up(service)
    await after_backup()
    later = asyncio.create_task(clients.shop(ORDERS // 2, RATE, first=ORDERS // 2))
    await clients.acknowledged(clients.placed + LATER)
    clients.restored = True
    recovery = await clients.recovery(await shop.restore(service, backup, *statements))
    await asyncio.gather(first, later)
    return made, recovery


async def filled_carts(clients: Clients) -> list[Basket]:
    return [await clients.shoppers.fill(items) for items in clients.new_carts(CARTS)]


async def buy_all(clients: Clients, baskets: list[Basket]) -> list[Attempt]:
    return await asyncio.gather(*(clients.shoppers.buy_basket(each) for each in baskets))


async def no_fault(shop: FaultShop, clients: Clients) -> float:
    raise AssertionError("these tests break the shop themselves")


RESTORES = {
    "order": Scenario("order database restored from a backup", no_fault),
    "product": Scenario("product database restored from a backup", no_fault),
    "carts": Scenario("carts alone restored from a backup", no_fault),
}


async def test_order_database_restored_from_older_backup(
    servers: Servers, tmp_path: Path, add_row: AddRow, check_alerts: CheckAlerts
) -> None:
    """Orders newer than the backup are gone. `reconcile` reports them and frees their stock; no others are lost."""
    scenario = RESTORES["order"]
    async with running(servers, tmp_path / "shop", scenario, check_alerts) as (shop, clients):
        # As docs/operations.md says: the numbers of orders that are gone were given to their customers.
        baskets = await filled_carts(clients)
        made, recovery = await restored(
            shop,
            clients,
            "order",
            f"SELECT setval('order_number', nextval('order_number') + {MOVED_ON})",
            after_backup=lambda: buy_all(clients, baskets),
        )
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
        # The carts have their items again. Nothing can be ordered under the etags of the lost orders any more.
        expired = clients.shoppers.expired
        again = await buy_all(clients, baskets)
        assert {each.status for each in again} == {"PLACED"}
        assert clients.shoppers.expired - expired == len(baskets)
        await settle(shop)
        assert findings(await shop.reconcile()) == []
        async with shop.connections() as connections:
            row = await check(scenario.fault, clients, connections, recovery, backup_time=made)
            there = await versions(connections)
            await check_stock_counts(clients, connections)
        add_row(row)
        row.check()
        # An order that was made of a cart may be gone before its client was told of it.
        known = {each.id for each in clients.attempts if each.status}.union(*(each.may_be for each in clients.attempts))
        assert foreseen <= known - set(there), "each order that it reports as gone existed, and no longer does"
        assert clients.problems == []


def findings(result: tuple[int, str]) -> list[str]:
    """Returns the findings of a run that succeeded."""
    status, output = result
    assert status == 0, output
    return [line for line in output.splitlines() if line.startswith("order ")]


async def test_product_database_restored_from_older_backup(
    servers: Servers, tmp_path: Path, add_row: AddRow, check_alerts: CheckAlerts
) -> None:
    """Reservations are made again where stock is left. `reconcile` reports the orders for which there is none."""
    scenario = RESTORES["product"]
    async with running(servers, tmp_path / "shop", scenario, check_alerts) as (shop, clients):
        _, recovery = await restored(shop, clients, "product")
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
        add_row(row)
        row.check()
        await watchers_see(shop, clients)
        assert clients.problems == []


async def test_carts_alone_restored_from_older_backup(
    servers: Servers, tmp_path: Path, add_row: AddRow, check_alerts: CheckAlerts
) -> None:
    """Carts have items again that were ordered. `reconcile` reports them and empties them, so nobody buys twice."""
    scenario = RESTORES["carts"]
    async with (
        running(servers, tmp_path / "shop", scenario, check_alerts) as (shop, clients),
        shop.connections() as connections,
    ):
        shopping = asyncio.create_task(clients.shop(ORDERS // 2, RATE))
        await clients.acknowledged(MIDDLE // 4)
        baskets = await filled_carts(clients)
        await connections["order"].execute("CREATE TABLE kept_cart AS TABLE cart")
        ordered = {
            (basket.id, attempt.id)
            for basket, attempt in zip(baskets, await buy_all(clients, baskets), strict=True)
            if attempt.status
        }
        assert len(ordered) == CARTS
        clients.restored = True
        async with connections["order"].transaction():
            await connections["order"].execute("DELETE FROM cart")
            await connections["order"].execute("INSERT INTO cart SELECT * FROM kept_cart")
        recovery = await clients.recovery(asyncio.get_running_loop().time())
        await shopping
        await settle(shop)
        status, output = await shop.reconcile("--dry-run")
        assert status == 1, output
        assert ordered <= refilled_carts(output)
        status, output = await shop.reconcile("--force")
        assert status == 0, output
        assert ordered <= refilled_carts(output)
        assert refilled_carts((await shop.reconcile())[1]) == set()
        row = await check(scenario.fault, clients, connections, recovery, carts_restored=True)
        left = await pieces_in_carts(connections["order"])
        assert not {cart_id for cart_id, _ in ordered} & set(left)
        await check_stock_counts(clients, connections)
        add_row(row)
        row.check()
        assert clients.problems == []


def refilled_carts(output: str) -> set[tuple[str, str]]:
    """Returns the carts that `reconcile` reported to have the items of an order, each with the id of the order."""
    return set(re.findall(r"^cart (\S+) still has the items of order (\S+)", output, re.MULTILINE))
