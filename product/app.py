"""The product service as a whole: its parts, and the order in which they start and stop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shop.product.v1 import product_pb2_grpc, stock_pb2_grpc

from product import service, stock_service
from product.config import Config
from product.service import ProductService
from product.stock_service import StockService
from product.stock_store import StockStore
from product.store import ProductStore
from runtime.access.credential import Credential
from runtime.access.opening import open_gate
from runtime.database import ONE_PROCESSOR, Database
from runtime.schema import Schema
from runtime.server import Server
from runtime.telemetry import Telemetry

NAME = "product"
MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def serving(config: Config) -> AsyncGenerator[Server, None]:
    """Runs the service.

    It listens at once and is ready when its database is. On leaving it drains, lets running calls finish, and releases
    everything in reverse order.
    """
    schema = Schema.load(MIGRATIONS)
    database = Database(config.database, NAME)
    stock = Database(config.stock, f"{NAME} stock")
    searches = Database(config.search, f"{NAME} search", ONE_PROCESSOR)
    credential = Credential(config.access)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        stack.callback(telemetry.close)
        for each in (database, stock, searches):
            stack.push_async_callback(each.close)
            await each.open()
        gate = await stack.enter_async_context(open_gate(config.access, credential))
        server = Server(config.server, telemetry, gate, [service.NAME, stock_service.NAME])
        store = ProductStore(database, searches, max_waiting=config.database.pool_waiting)
        server.add(product_pb2_grpc.add_ProductServiceServicer_to_server, ProductService(store))
        server.add(stock_pb2_grpc.add_StockServiceServicer_to_server, StockService(StockStore(stock)))

        async def check() -> str:
            # The search pool is left out: too many searches are no reason to send other calls elsewhere.
            return await stock.check(schema) or await database.check(schema)

        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(check))
        stack.callback(watching.cancel)
        yield server
        watching.cancel()
        await server.drain()
