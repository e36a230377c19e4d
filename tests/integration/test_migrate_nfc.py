"""What older releases stored is brought into Unicode's NFC, in which it is looked for from now on."""

import shutil
from pathlib import Path
from uuid import uuid4

import psycopg
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from runtime.migrate import migrate
from tests.support.database import REPOSITORY
from tests.support.order import FakeStock, order_shop
from tests.support.product import product_shop

NFD, NFC = "Cafe\u0301", "Caf\u00e9"


async def migrate_before(conninfo: str, service: str, folder: Path) -> None:
    """The schema as it was before the migration, so that rows of then can be written."""
    for path in (REPOSITORY / service / "migrations").glob("*.sql"):
        if path.name < "0005":
            shutil.copy(path, folder)
    await migrate(conninfo, folder)


async def test_older_products_share_one_category(empty_database: str, tmp_path: Path) -> None:
    await migrate_before(empty_database, "product", tmp_path)
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
        for name in (NFD, NFC):
            await connection.execute(
                "INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros,"
                " stock, star, image_uri) SELECT gen_random_uuid(), n, u, u, n, n, n, 'EUR', 1, 0, 0, ''"
                " FROM CAST(%s AS text) AS n, CAST(gen_random_uuid() AS text) AS u",
                (name,),
            )
    await migrate(empty_database, REPOSITORY / "product" / "migrations")
    async with product_shop(empty_database) as shop:
        categories = await shop.products.ListCategories(product_pb2.ListCategoriesRequest())
        assert [each.name for each in categories.categories] == [NFC]
        for request in (
            product_pb2.ListProductsRequest(search=NFD),
            product_pb2.ListProductsRequest(category=NFD),
        ):
            found = (await shop.products.ListProducts(request)).products
            assert [(each.name, each.variant, each.description, each.etag) for each in found] == [
                (NFC, NFC, NFC, "1")
            ] * 2


async def test_older_orders_are_found_by_their_address(empty_database: str, tmp_path: Path) -> None:
    await migrate_before(empty_database, "order", tmp_path)
    key = str(uuid4())
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO orders (id, number, status, customer_email, notes)"
            " VALUES (%s, next_order_number(), 'PLACED', %s, %s)",
            (key, f"{NFD}@example.com", NFD),
        )
    await migrate(empty_database, REPOSITORY / "order" / "migrations")
    async with order_shop(empty_database, FakeStock()) as shop:
        request = order_pb2.ListOrdersRequest(customer_email=f"{NFC}@example.com")
        (order,) = (await shop.orders.ListOrders(request)).orders
        assert (order.id, order.notes) == (key, NFD), "what nobody looks for stays as it was sent"
