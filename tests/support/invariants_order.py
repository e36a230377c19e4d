"""Invariants of orders, checked in the databases."""

from typing import Any

import psycopg

Connection = psycopg.AsyncConnection[Any]

_BROKEN_LOGS = """
    SELECT o.id::text, o.version, array_agg(e.version ORDER BY e.version)
    FROM orders AS o LEFT JOIN order_event AS e ON e.order_id = o.id
    WHERE o.status <> 'EXPIRED'
    GROUP BY o.id
    HAVING array_agg(e.version ORDER BY e.version)
            IS DISTINCT FROM (SELECT array_agg(n::bigint) FROM generate_series(1, o.version) AS n)
        OR (array_agg(e.status ORDER BY e.version DESC))[1] <> o.status
    """


async def check_logs(orders: Connection) -> None:
    """Fails unless each order's versions run from 1 without a gap to its own, and the last event is its status."""
    assert await (await orders.execute(_BROKEN_LOGS)).fetchall() == []


async def confirmed_and_live(orders: Connection, products: Connection) -> tuple[set[str], set[str]]:
    """Returns the ids of confirmed reservations, and those of orders that are not cancelled."""
    confirmed = await products.execute("SELECT id::text FROM reservation WHERE state = 'CONFIRMED'")
    live = await orders.execute("SELECT id::text FROM orders WHERE status NOT IN ('CANCELLED', 'EXPIRED')")
    return {row[0] for row in await confirmed.fetchall()}, {row[0] for row in await live.fetchall()}


async def settled(orders: Connection, products: Connection) -> bool:
    """Returns whether no message waits, no stock is held, and exactly the orders' stock is confirmed."""
    left = await (await orders.execute("SELECT count(*) FROM outbox")).fetchone()
    held = await (await products.execute("SELECT count(*) FROM reservation WHERE state = 'HELD'")).fetchone()
    confirmed, live = await confirmed_and_live(orders, products)
    return left == (0,) and held == (0,) and confirmed == live
