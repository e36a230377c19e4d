"""Writes products and orders into databases, the same for the shop and its rivals."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID

import psycopg

DESCRIPTION = (
    "A sturdy piece made of solid wood, oiled by hand, delivered in a flat box"
    " with all that is needed to put it together."
)

WORDS = ("oak", "walnut", "steel", "linen", "marble", "copper", "bamboo", "velvet", "granite", "ceramic")
THINGS = ("chair", "table", "lamp", "shelf", "stool", "mirror", "bowl", "vase", "clock", "basket")

HOT = 1_000
"""Products and orders that are read by id."""

ORDERS_PER_CUSTOMER = 100

_ORDER_ID: LiteralString = "('00000000-0000-4000-9000-' || lpad(to_hex(n), 12, '0'))::uuid"


def product_id(number: int) -> UUID:
    """Returns the id of the product with this number, from 1."""
    return UUID(f"00000000-0000-4000-8000-{number:012x}")


def order_id(number: int) -> UUID:
    """Returns the id of the order with this number, from 1."""
    return UUID(f"00000000-0000-4000-9000-{number:012x}")


def hold_id(number: int) -> UUID:
    """Returns the id of a reservation whose order was never placed."""
    return UUID(f"00000000-0000-4000-a000-{number:012x}")


_PRODUCTS: LiteralString = """
    WITH made AS (
        SELECT n, (%(words)s::text[])[1 + n %% 10] || ' ' || (%(things)s::text[])[1 + n / 10 %% 10] || ' ' || n AS name
        FROM generate_series(1, %(products)s) AS n
    )
    INSERT INTO product (id, name, slug, sku, description, category, currency, price_micros, stock, star,
        create_time, variant, image_uri)
    SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, name, replace(name, ' ', '-'), 'SKU-' || n,
        %(description)s, 'Category ' || n %% 20, 'EUR', (1 + n %% 500) * 1000000, 50000000, n %% 6,
        now() - n * interval '1 second', '', ''
    FROM made
    """

_ITEMS: LiteralString = """
    jsonb_build_array(jsonb_build_object(
        'product_id', '00000000-0000-4000-8000-' || lpad(to_hex(1 + n %% %(products)s), 12, '0'),
        'quantity', 1, 'name', 'oak chair', 'currency', 'EUR', 'price_micros', 9500000))
    """


def fill_products(conninfo: str, products: int) -> None:
    """Writes products, all of them in stock. Product 1 is the newest."""
    params = {"products": products, "words": list(WORDS), "things": list(THINGS), "description": DESCRIPTION}
    with psycopg.connect(conninfo) as connection, indexed_after(connection, "product"):
        connection.execute(_PRODUCTS, params)
    vacuum(conninfo, "product")


_RESERVATIONS: LiteralString = f"""
    INSERT INTO reservation (id, state, items, expire_time)
    SELECT {_ORDER_ID}, 'CONFIRMED', {_ITEMS}, now() FROM generate_series(1, %(orders)s) AS n
    """

_ORDERS: LiteralString = f"""
    INSERT INTO orders (id{{column}}, fingerprint, number, status, items, currency, total_micros, customer_name,
        customer_email, customer_phone, shipping_address, payment_method, create_time, version)
    SELECT {_ORDER_ID}{{value}}, '', 'INV-20260101-' || lpad(n::text, 8, '0'),
        CASE WHEN n <= %(open)s THEN 'PLACED' ELSE 'RECEIVED' END, {_ITEMS}, 'EUR', 9500000, 'Ada Lovelace',
        'ada' || n %% %(customers)s || '@example.com', '+44 20 7946 0000', '12 St James''s Square, London', 'CARD',
        now() - n * interval '1 second', CASE WHEN n <= %(open)s THEN 1 ELSE 2 END
    FROM generate_series(1, %(orders)s) AS n
    """


def fill_reservations(conninfo: str, products: int, orders: int) -> None:
    """Writes the confirmed reservations of the orders that `fill_orders` writes."""
    with psycopg.connect(conninfo) as connection, indexed_after(connection, "reservation"):
        connection.execute(_RESERVATIONS, {"products": products, "orders": orders})
    vacuum(conninfo, "reservation")


def fill_orders(conninfo: str, products: int, orders: int, *, ours: bool, open_orders: int | None = None) -> None:
    """Writes orders of one piece each, with their events.

    Args:
        conninfo: The database.
        products: How many products there are to order.
        orders: How many orders to write.
        ours: Whether the tables are the shop's, not the rivals'.
        open_orders: How many of the newest orders are PLACED, all by default. The others are RECEIVED.
    """
    query = _ORDERS.format(column="" if ours else ", key", value="" if ours else f", {_ORDER_ID}")
    with (
        psycopg.connect(conninfo) as connection,
        indexed_after(connection, "orders"),
        indexed_after(connection, "order_event"),
    ):
        connection.execute(
            query,
            {
                "products": products,
                "orders": orders,
                "open": orders if open_orders is None else open_orders,
                "customers": max(1, orders // ORDERS_PER_CUSTOMER),
            },
        )
        connection.execute(
            "INSERT INTO order_event (order_id, version, status, create_time)"
            " SELECT id, 1, 'PLACED', create_time FROM orders"
            " UNION ALL SELECT id, version, status, create_time FROM orders WHERE version > 1"
        )
    vacuum(conninfo, "orders", "order_event")


@contextmanager
def indexed_after(connection: psycopg.Connection[Any], table: str) -> Iterator[None]:
    """Drops a table's indexes, but not those of constraints, and builds them after the block, which is much faster."""
    indexes = connection.execute(
        """
        SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indrelid = %s::regclass AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        """,
        (table,),
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}".encode())  # as PostgreSQL has quoted it
    yield
    connection.execute("SET LOCAL maintenance_work_mem = '1GB'")
    for _, definition in indexes:
        connection.execute(definition.encode())


def vacuum(conninfo: str, *tables: LiteralString) -> None:
    """Does what autovacuum would do sooner or later, so that figures do not depend on when."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE " + ", ".join(tables))
