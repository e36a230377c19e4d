"""Invariants of the stock, checked in the database."""

from typing import Any

import psycopg

_STOCK = """
    WITH moved (product_id, pieces) AS (
        SELECT product_id, delta FROM stock_adjustment
        UNION ALL
        SELECT id, -stock FROM product
        UNION ALL
        SELECT item.product_id, -item.quantity
        FROM reservation CROSS JOIN jsonb_to_recordset(items) AS item (product_id uuid, quantity bigint)
        WHERE state IN ('HELD', 'CONFIRMED')
    )
    SELECT product_id::text, sum(pieces)::bigint FROM moved GROUP BY product_id HAVING sum(pieces) <> 0
    UNION ALL
    SELECT id::text, stock FROM product WHERE stock < 0
    """


async def stock_leaks(connection: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    """Returns the products whose pieces do not add up: lost ones are positive, invented ones negative.

    For each product, initial + adjusted = available + held + confirmed.
    """
    return dict(await (await connection.execute(_STOCK)).fetchall())


async def check_stock(connection: psycopg.AsyncConnection[Any]) -> None:
    """Fails unless every piece of every product is accounted for."""
    assert await stock_leaks(connection) == {}
