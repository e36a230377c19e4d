"""Carts for the benchmarks, written into the order database."""

from typing import LiteralString
from uuid import UUID

import psycopg

from bench.data import indexed_after, vacuum
from order.cart.domain import hash_secret

SECRET = "bench"  # noqa: S105 - of guests' carts that live for minutes; load.lua has it, too
"""The secret of all carts."""

_CARTS: LiteralString = """
    INSERT INTO cart (id, secret_hash, etag, items, expire_time)
    SELECT ('00000000-0000-4000-b000-' || lpad(to_hex(n), 12, '0'))::uuid, %(secret)s,
        ('00000000-0000-4000-b001-' || lpad(to_hex(n), 12, '0'))::uuid,
        jsonb_build_array(jsonb_build_object(
            'product_id', '00000000-0000-4000-8000-' || lpad(to_hex(%(product)s + n %% %(products)s), 12, '0'),
            'quantity', 1, 'name', 'oak chair', 'currency', 'EUR', 'price_micros', 9500000)),
        now() + interval '30 days'
    FROM generate_series(%(first)s::bigint, %(last)s) AS n
    """

_STALE: LiteralString = """
    INSERT INTO cart (secret_hash, items, create_time, update_time, expire_time)
    SELECT %(secret)s,
        jsonb_build_array(
            jsonb_build_object('product_id', gen_random_uuid(), 'quantity', 1, 'name', 'oak chair', 'currency', 'EUR',
                'price_micros', 9500000),
            jsonb_build_object('product_id', gen_random_uuid(), 'quantity', 2, 'name', 'steel lamp', 'currency', 'EUR',
                'price_micros', 19500000)),
        now() - age - interval '30 days', now() - age - interval '30 days', now() - age
    FROM (SELECT interval '1 minute' + random() * interval '10 days' AS age FROM generate_series(1, %(carts)s)) AS made
    """


def cart_id(number: int) -> UUID:
    """Returns the id of the cart with this number, from 1."""
    return UUID(f"00000000-0000-4000-b000-{number:012x}")


def etag(number: int) -> UUID:
    """Returns the etag that the cart with this number has before it is changed."""
    return UUID(f"00000000-0000-4000-b001-{number:012x}")


def fill_carts(conninfo: str, first: int, carts: int, *, product: int = 1, products: int) -> None:
    """Writes carts of guests with one piece each.

    Args:
        conninfo: The order database.
        first: The number of the first cart.
        carts: How many to write.
        product: The number of the first product that they have.
        products: How many products they share.
    """
    params = {
        "secret": hash_secret(SECRET),
        "first": first,
        "last": first + carts - 1,
        "product": product,
        "products": products,
    }
    with psycopg.connect(conninfo) as connection, indexed_after(connection, "cart"):
        connection.execute(_CARTS, params)
    vacuum(conninfo, "cart")


def fill_stale_carts(conninfo: str, carts: int) -> None:
    """Writes guests' carts with two items each, which expired in the last ten days."""
    with psycopg.connect(conninfo) as connection, indexed_after(connection, "cart"):
        connection.execute(_STALE, {"secret": hash_secret(SECRET), "carts": carts})
    vacuum(conninfo, "cart")


def stale_carts(conninfo: str) -> int:
    """Returns how many carts have expired."""
    with psycopg.connect(conninfo) as connection:
        found = connection.execute("SELECT count(*) FROM cart WHERE expire_time <= now()").fetchone()
    assert found, "an aggregate has one row"
    return int(found[0])
