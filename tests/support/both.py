"""Both services in the process of the test, and `order reconcile`."""

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from order.jobs.reconcile import Options, Reconciliation, add_options
from order.product_calls import ProductCalls
from order.stock_client import StockClient
from runtime.cli import CommandError
from runtime.config import DatabaseConfig, Env
from runtime.database import Database
from tests.support.access import credential
from tests.support.eventually import eventually
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.order import OrderShop, order_shop
from tests.support.product import ProductShop, product_shop


def parse(arguments: Sequence[str]) -> Options:
    """Parses the options of `order reconcile`."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser)
    return Options.of(parser.parse_args(arguments))


class Both:
    """Both services, and the command."""

    def __init__(self, shop: OrderShop, products: ProductShop) -> None:
        self.shop = shop
        self.products = products

    async def reconcile(self, *options: str, database_url: str = "") -> list[str]:
        """Runs the command. Returns its lines; the last one is the error if it fails."""
        lines: list[str] = []
        config = DatabaseConfig.from_env(Env({"DATABASE_URL": database_url or self.shop.conninfo}))
        database = Database(config, "test reconcile")
        await database.open()
        try:
            async with grpc.aio.insecure_channel(self.products.address) as channel:
                stock = StockClient(channel, ProductCalls(credential()))
                await Reconciliation(database, stock, lines.append, parse(options)).run()
        except CommandError as error:
            lines.append(str(error))
        finally:
            await database.close()
        return lines

    async def in_orders(self, query: str, *values: Any) -> None:
        async with self.shop.connection() as connection:
            await connection.execute(query.encode(), values)

    async def in_products(self, query: str, *values: Any) -> None:
        async with self.products.connection() as connection:
            await connection.execute(query.encode(), values)

    async def settle(self) -> None:
        async with self.shop.connection() as orders, self.products.connection() as stock:
            await eventually(lambda: settled(orders, stock))
            await check_logs(orders)
            await check_stock(stock)

    async def lose_reservation(self, order_id: str) -> None:
        """Removes a reservation, as a restored product database does."""
        await self.in_products(
            "WITH gone AS (DELETE FROM reservation WHERE id = %s RETURNING items)"
            " UPDATE product SET stock = stock + item.quantity"
            " FROM gone, jsonb_to_recordset(gone.items) AS item (product_id uuid, quantity integer)"
            " WHERE product.id = item.product_id",
            order_id,
        )


@asynccontextmanager
async def both_shops(order_database: str, product_database: str, **variables: Any) -> AsyncIterator[Both]:
    """Runs both services on migrated databases. `variables` are environment variables of the order service."""
    async with (
        product_shop(product_database) as products,
        order_shop(order_database, products.address, **variables) as shop,
    ):
        yield Both(shop, products)
