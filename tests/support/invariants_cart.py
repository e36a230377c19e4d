"""Invariants of carts, checked in the database."""

from collections import Counter
from typing import Any

import psycopg

from order.cart.domain import MAX_ITEMS, MAX_QUANTITY

Connection = psycopg.AsyncConnection[Any]

Pieces = Counter[str]
"""The pieces of each product, by its id."""

_BROKEN_CARTS = """
    SELECT cart.id::text, cart.items, merged_into::text, orders.id::text
    FROM cart
    CROSS JOIN LATERAL (
        SELECT count(*) AS size, count(DISTINCT product_id) AS products,
            count(*) FILTER (WHERE quantity BETWEEN 1 AND %(max_quantity)s) AS valid
        FROM jsonb_to_recordset(cart.items) AS item (product_id text, quantity bigint)
    ) AS item
    LEFT JOIN orders ON orders.cart_id = cart.id AND orders.create_time > cart.update_time AND cart.items <> '[]'
    WHERE size > %(max_items)s OR size <> products OR size <> valid OR (merged_into IS NOT NULL AND size > 0)
        OR orders.id IS NOT NULL
    """

_IN_CARTS = """
    SELECT id::text, product_id, quantity
    FROM cart CROSS JOIN jsonb_to_recordset(items) AS item (product_id text, quantity bigint)
    """

_ORDERED = """
    SELECT cart_id::text, product_id, sum(quantity)::bigint
    FROM orders CROSS JOIN jsonb_to_recordset(items) AS item (product_id text, quantity bigint)
    WHERE cart_id IS NOT NULL AND status <> 'EXPIRED' GROUP BY 1, 2
    """


async def check_carts(orders: Connection) -> None:
    """Fails unless each cart is one that a shop may have.

    A product is in a cart once, no limit is exceeded, a cart that was merged into another one is empty, and no cart has
    items although an order was made of it after its last change.
    """
    limits = {"max_items": MAX_ITEMS, "max_quantity": MAX_QUANTITY}
    assert await (await orders.execute(_BROKEN_CARTS, limits)).fetchall() == []


async def pieces_in_carts(orders: Connection) -> dict[str, Pieces]:
    """Returns what is in each cart that is not empty, by its id."""
    return await _pieces(orders, _IN_CARTS)


async def pieces_ordered(orders: Connection) -> dict[str, Pieces]:
    """Returns what was ordered from each cart, by its id. Cancelled orders count too: they were made of the cart."""
    return await _pieces(orders, _ORDERED)


async def _pieces(orders: Connection, query: str) -> dict[str, Pieces]:
    found: dict[str, Pieces] = {}
    for cart_id, product_id, quantity in await (await orders.execute(query.encode())).fetchall():
        found.setdefault(cart_id, Counter())[product_id] += quantity
    return found
