"""The largest pages that the limits of texts allow pass the edge, also where JSON makes each character six."""

from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.rest import Rest
from tests.support.shop import RunningShop


@pytest.mark.parametrize("character", ["<", "\U0001f381"])
async def test_largest_page_of_orders_passes_the_edge(shop: RunningShop, rest: Rest, character: str) -> None:
    email = f"{uuid4().hex}@example.com"
    item = {"product_id": str(uuid4()), "quantity": 1, "name": character * 200, "price_micros": 1_000_000}
    async with await psycopg.AsyncConnection.connect(shop.shop.postgres.service("order"), autocommit=True) as orders:
        await orders.execute(
            "INSERT INTO orders (id, number, status, items, currency, total_micros, customer_email, customer_name,"
            " shipping_address, payment_method, notes) SELECT gen_random_uuid(), next_order_number(), 'RECEIVED', %s,"
            " 'EUR', 50000000, %s, repeat(c, 200), repeat(c, 1000), repeat(c, 64), repeat(c, 2000)"
            " FROM generate_series(1, 100), CAST(%s AS text) AS c",
            (Jsonb([item] * 50), email, character),
        )
    await _read_all(rest, f"/api/v1/orders?customerEmail={email}", "orders")


@pytest.mark.parametrize("character", ["<", "\U0001f381"])
async def test_largest_page_of_products_passes_the_edge(shop: RunningShop, rest: Rest, character: str) -> None:
    category = uuid4().hex
    async with await psycopg.AsyncConnection.connect(
        shop.shop.postgres.service("product"), autocommit=True
    ) as products:
        await products.execute(
            "INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros, stock,"
            " star, image_uri)"
            " SELECT gen_random_uuid(), repeat(c, 200), %s || i, %s || i, repeat(c, 100), repeat(c, 10000), %s,"
            " 'EUR', 0, 0, 0, '/' || repeat(c, 1999)"
            " FROM generate_series(1, 100) AS i, CAST(%s AS text) AS c",
            (category, category, category, character),
        )
        await _read_all(rest, f"/api/v1/products?category={category}", "products")
        # The shop is that of other tests too, which look for its cheapest product.
        await products.execute("UPDATE product SET delete_time = now() WHERE category = %s", (category,))


async def _read_all(rest: Rest, url: str, field: str) -> None:
    """All hundred, in pages that are as large as can be."""
    found, token = 0, ""
    while True:
        answer = await rest.http.get(f"{url}&pageSize=100&pageToken={token}")
        assert answer.status_code == 200, answer.text[:200]
        page = answer.json()
        found += len(page[field])
        token = page["nextPageToken"]
        if not token:
            break
    assert found == 100
