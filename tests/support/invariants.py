"""What has to be true at any time, asked of the database itself."""

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
    """The products of which pieces were lost (positive) or invented (negative): initial + adjusted =
    available + held + confirmed, for each product."""
    return dict(await (await connection.execute(_STOCK)).fetchall())


async def check_stock(connection: psycopg.AsyncConnection[Any]) -> None:
    """Fails unless every piece of every product is accounted for."""
    assert await stock_leaks(connection) == {}
