"""Counts what is wrong after the races of a pair, from the databases and from what the clients were told."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from tests.races.audit import Audit, Count, PlacedOrder, Version
from tests.races.driver import Driver
from tests.races.rounds import Round
from tests.support.eventually import eventually
from tests.support.invariants import stock_leaks
from tests.support.invariants_order import confirmed_and_live, settled

Connections = Mapping[str, psycopg.AsyncConnection[Any]]

SETTLE_TIMEOUT = 60.0
"""Seconds until all orders are confirmed or their stock is given back. Some holds end only when their time is over."""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    pair: str
    calls: int
    """Calls that raced, and were answered."""
    lost: int
    """Pieces that are gone from a cart, or never came there, although the call that was acknowledged says otherwise."""
    free: int
    """Orders whose total does not pay their items, is higher than the customer saw, or that have more than they saw."""
    doubled: int
    """Pieces that are in two orders, in an order and still in the cart, back in a cart from which they were removed, or
    added twice by one request."""
    oversold: int
    """Pieces of a product that were sold or held beyond those that there were, or that are nowhere; and open orders
    without stock."""

    def check(self) -> None:
        assert (self.lost, self.free, self.doubled, self.oversold) == (0, 0, 0, 0), self


async def check(
    driver: Driver, pair: str, connections: Connections, settle_timeout: float = SETTLE_TIMEOUT
) -> tuple[Row, list[str]]:
    """Counts what is wrong. Returns the row, and what clients should not have been told."""
    count = Count(problems=[each for race in driver.rounds for each in race.problems])
    carts = {cart: race for race in driver.rounds for holder in race.everybody for cart in holder.carts}
    versions = await _versions(connections["order"], list(carts))
    orders = await _orders(connections["order"], list(carts))
    by_round: defaultdict[Round, tuple[list[Version], list[PlacedOrder]]] = defaultdict(lambda: ([], []))
    for version in versions:
        by_round[carts[version.cart]][0].append(version)
    for order in orders:
        by_round[carts[order.cart]][1].append(order)
    for race in driver.rounds:
        Audit(race, *by_round[race], count).run()
    oversold = await _oversold(driver, orders, connections, count, settle_timeout)
    return Row(pair, driver.calls, count.lost, count.free, count.doubled, oversold), count.problems


async def _oversold(
    driver: Driver, orders: Sequence[PlacedOrder], connections: Connections, count: Count, settle_timeout: float
) -> int:
    """Returns the pieces that were sold and did not exist, or are nowhere, when nothing is under way any more."""
    try:
        await eventually(lambda: settled(connections["order"], connections["product"]), settle_timeout)
    except AssertionError:
        count.problems.append(f"orders are not settled after {settle_timeout:.0f} s")
    products = {product for race in driver.rounds for product in race.products}
    confirmed, live = await confirmed_and_live(connections["order"], connections["product"])
    leaks = await stock_leaks(connections["product"])
    had = await _ledger(connections["product"], list(products))
    sold: defaultdict[str, int] = defaultdict(int)
    for order in orders:
        if order.status != "CANCELLED":
            for product, pieces in order.items.items():
                sold[product] += pieces
    given: defaultdict[str, int] = defaultdict(int)
    for race in driver.rounds:
        given[race.products[0]] += race.stock
        given[race.products[1]] += had[race.products[1]]
        for call in {each.key: each for each in race.calls if each.kind == "adjustStock" and not each.refusal}.values():
            given[call.product] += call.quantity
    count.compare(given, had)
    ours = {each.id for each in orders}
    return (
        sum(max(0, pieces - had[product]) for product, pieces in sold.items())
        + sum(abs(pieces) for product, pieces in leaks.items() if product in products)
        + len((live ^ confirmed) & ours)
    )


async def _versions(connection: psycopg.AsyncConnection[Any], carts: list[str]) -> list[Version]:
    query = f"""
        SELECT seq, transaction::text, cart_id::text AS cart, old_etag::text, etag::text, {_pieces("old_items")},
            {_pieces("items")}, merged, was_expired
        FROM cart_history WHERE cart_id = ANY (%s::uuid[]) ORDER BY seq
        """
    async with connection.cursor(row_factory=class_row(Version)) as cursor:
        return await (await cursor.execute(query.encode(), (carts,))).fetchall()


async def _orders(connection: psycopg.AsyncConnection[Any], carts: list[str]) -> list[PlacedOrder]:
    query = f"""
        SELECT id::text, cart_id::text AS cart, transaction::text, status, {_pieces("items")},
            total_micros::bigint, (
                SELECT sum((item ->> 'quantity')::bigint * (item ->> 'price_micros')::bigint)::bigint
                FROM jsonb_array_elements(items) AS item
            ) AS cost_micros
        FROM orders JOIN order_history ON order_id = id
        WHERE cart_id = ANY (%s::uuid[]) AND status <> 'EXPIRED'
        """
    async with connection.cursor(row_factory=class_row(PlacedOrder)) as cursor:
        return await (await cursor.execute(query.encode(), (carts,))).fetchall()


def _pieces(column: str) -> str:
    """Returns an expression for the pieces by product."""
    return f"""(
        SELECT coalesce(jsonb_object_agg(item ->> 'product_id', item -> 'quantity'), '{{}}')
        FROM jsonb_array_elements({column}) AS item
    ) AS {column}"""


async def _ledger(connection: psycopg.AsyncConnection[Any], products: list[str]) -> dict[str, int]:
    rows = await connection.execute(
        "SELECT product_id::text, sum(delta)::bigint FROM stock_adjustment WHERE product_id = ANY (%s::uuid[])"
        " GROUP BY 1",
        (products,),
    )
    return dict(await rows.fetchall())
