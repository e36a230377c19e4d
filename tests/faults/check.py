"""Counts in the databases what is wrong after a fault, as a row of the table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg

from tests.faults.attempts import Attempt
from tests.faults.clients import Clients
from tests.support.invariants import stock_leaks
from tests.support.invariants_cart import Pieces, check_carts, pieces_in_carts, pieces_ordered
from tests.support.invariants_order import check_logs, confirmed_and_live

Connections = Mapping[str, psycopg.AsyncConnection[Any]]


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    fault: str
    attempted: int
    """Orders that clients tried to place, each with its own key, including those that measure the recovery."""
    acknowledged: int
    """Orders whose clients got a response that they are placed."""
    carts: int
    """Those of them that were made of carts."""
    lost: int
    """Acknowledged orders that do not exist, or have an earlier status than was acknowledged. After a restore of the
    order database: those that do not exist and are not accounted for either. Also pieces that were put into carts and
    are neither there nor in an order."""
    oversold: int
    """Pieces that open orders have beyond those that ever existed, and open orders without a confirmed reservation."""
    doubled: int
    """Second orders of one key, keys with different responses, orders that exist although they were refused, and order
    numbers that occur twice. Also pieces that are in a cart and in an order, or in a cart twice."""
    leaked: int
    """When nothing is under way: holds, confirmed reservations without an open order, and pieces that are lost."""
    recovery_s: float

    def check(self) -> None:
        assert (self.lost, self.oversold, self.doubled, self.leaked) == (0, 0, 0, 0), self


NOTHING_WRONG = Row("", 0, 0, 0, 0, 0, 0, 0, 0)


class FilledCart(Protocol):
    """A cart and what was put into it."""

    id: str
    put_in: Pieces


class Evidence(Protocol):
    """What clients know."""

    @property
    def attempts(self) -> Sequence[Attempt]: ...

    @property
    def baskets(self) -> Sequence[FilledCart]: ...


AddRow = Callable[[Row], None]
"""Adds a row to the table."""


@dataclass(frozen=True)
class _Order:
    id: str
    number: str | None
    status: str
    key: str


async def check(
    fault: str,
    clients: Evidence,
    connections: Connections,
    recovery: float,
    *,
    backup_time: float = 0,
    carts_restored: bool = False,
) -> Row:
    """Counts what is wrong.

    Args:
        fault: The name of the fault.
        clients: All clients.
        connections: A connection to each service's database.
        recovery: The seconds that the recovery took.
        backup_time: When the backup was made from which the order database was restored, by the event loop's clock;
            0 if it was not restored.
        carts_restored: Whether only the carts were. What was put into them after the backup may be lost.
    """
    orders = await _orders(connections["order"])
    released = await _released(connections["product"])
    attempts = clients.attempts
    confirmed, live = await confirmed_and_live(connections["order"], connections["product"])
    leaks = await stock_leaks(connections["product"])
    sold, had = await _sold(connections["order"]), await _ledger(connections["product"])
    held = await _one(connections["product"], "SELECT count(*) FROM reservation WHERE state = 'HELD'")
    await check_logs(connections["order"])
    await check_carts(connections["order"])
    complete = not backup_time and not carts_restored
    carts_lost, carts_doubled = await _pieces_of_carts(clients, connections["order"]) if complete else (0, 0)
    return Row(
        fault=fault,
        attempted=len(attempts),
        acknowledged=sum(bool(each.status) for each in attempts),
        carts=sum(each.from_cart and bool(each.status) for each in attempts),
        lost=sum(_lost(each, orders, released, backup_time) for each in attempts if each.status) + carts_lost,
        oversold=sum(max(0, pieces - had[product]) for product, pieces in sold.items()) + len(live - confirmed),
        doubled=_doubled(attempts, orders) + carts_doubled,
        leaked=held + len(confirmed - live) + sum(abs(pieces) for pieces in leaks.values()),
        recovery_s=round(recovery, 2),
    )


async def check_stock_counts(clients: Clients, connections: Connections) -> None:
    """Fails unless each adjustment that was acknowledged was made once."""
    assert await _ledger(connections["product"]) == clients.stock


def check_watchers(clients: Clients, versions: Mapping[str, int]) -> int:
    """Fails unless each watcher saw each version of its order once and in order. Returns the number of watchers."""
    watched = [each for each in clients.attempts if each.watched]
    for each in watched:
        assert each.seen == list(range(1, versions[each.id] + 1)), each
    return len(watched)


async def tombstones(connections: Connections) -> int:
    """Returns the number of tombstones: orders that can never be placed."""
    return await _one(connections["order"], "SELECT count(*) FROM orders WHERE status = 'EXPIRED'")


async def largest_batch(connections: Connections) -> int:
    """Returns the most reservations that were made in one transaction."""
    each = "SELECT count(*) AS made FROM reservation WHERE items <> '[]' GROUP BY create_time"
    return await _one(connections["product"], f"SELECT max(made) FROM ({each}) AS batch")


async def versions(connections: Connections) -> dict[str, int]:
    """Returns the version of each order, by its id."""
    rows = await connections["order"].execute("SELECT id::text, version FROM orders WHERE status <> 'EXPIRED'")
    return dict(await rows.fetchall())


def _lost(attempt: Attempt, orders: list[_Order], released: set[str], backup_time: float) -> bool:
    order = next((each for each in orders if each.id == attempt.id), None)
    if backup_time:
        if order is None or order.status == "EXPIRED":
            # Its stock went back: by `reconcile`, which leaves a tombstone, when its client cancelled it, or by another
            # checkout of the same cart, which found the cart changed before the stock was confirmed.
            taken_back = attempt.from_cart and attempt.id in released
            accounted = order is not None or attempt.status == "CANCELLED" or taken_back
            return attempt.time < backup_time or not accounted
        return (attempt.status == "CANCELLED") != (order.status == "CANCELLED") or order.number != attempt.number
    return order is None or (order.number, order.status) != (attempt.number, attempt.status)


def _doubled(attempts: Sequence[Attempt], orders: list[_Order]) -> int:
    keys = Counter(each.key for each in orders if each.key)
    numbers = Counter(
        {number for each in attempts for number in each.answers}
        | {(each.id, each.number) for each in orders if each.number}
    )
    used = Counter(number for _, number in numbers)
    denied = {each.key for each in attempts if each.refusal}
    return (
        sum(count - 1 for count in keys.values())
        + sum(len(each.answers) - 1 for each in attempts if each.answers)
        + sum(count - 1 for count in used.values())
        + sum(each.key in denied for each in orders)
    )


async def _pieces_of_carts(clients: Evidence, connection: psycopg.AsyncConnection[Any]) -> tuple[int, int]:
    """Returns the pieces that were put into carts and are missing, and those that are there once too often."""
    in_carts, ordered = await pieces_in_carts(connection), await pieces_ordered(connection)
    lost = doubled = 0
    for basket in clients.baskets:
        there = in_carts.get(basket.id, Pieces()) + ordered.get(basket.id, Pieces())
        lost += (basket.put_in - there).total()
        doubled += (there - basket.put_in).total()
    return lost, doubled


async def _orders(connection: psycopg.AsyncConnection[Any]) -> list[_Order]:
    rows = await connection.execute("SELECT id::text, number, status, notes FROM orders")
    return [_Order(*row) for row in await rows.fetchall()]


async def _released(connection: psycopg.AsyncConnection[Any]) -> set[str]:
    """Returns the ids of the orders whose stock went back."""
    rows = await connection.execute("SELECT id::text FROM reservation WHERE state = 'RELEASED'")
    return {row[0] for row in await rows.fetchall()}


async def _sold(connection: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    rows = await connection.execute(
        "SELECT product_id, sum(quantity)::bigint FROM orders CROSS JOIN jsonb_to_recordset(items)"
        " AS item (product_id text, quantity bigint) WHERE status NOT IN ('CANCELLED', 'EXPIRED') GROUP BY 1"
    )
    return dict(await rows.fetchall())


async def _ledger(connection: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    """Returns the pieces of each product that ever existed, by its id."""
    rows = await connection.execute("SELECT product_id::text, sum(delta)::bigint FROM stock_adjustment GROUP BY 1")
    return dict(await rows.fetchall())


async def _one(connection: psycopg.AsyncConnection[Any], query: str) -> int:
    row = await (await connection.execute(query.encode())).fetchone()
    assert row
    return int(row[0])
