"""The product process: `python -m product run` serves, `python -m product migrate` brings the schema up to date."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from shop.product.v1 import product_pb2_grpc, stock_pb2_grpc

from product import service, stock_service
from product.service import ProductService
from product.stock_service import StockService
from product.stock_store import StockStore
from product.store import ProductStore
from runtime.config import DatabaseConfig, Env, ServerConfig, TelemetryConfig
from runtime.credentials import ConnectionInfo
from runtime.database import ONE_PROCESSOR, Database
from runtime.migrate import migrate as apply_migrations
from runtime.process import main
from runtime.schema import Schema
from runtime.server import Server, until_stopped
from runtime.telemetry import Telemetry

NAME = "product"
PORT = 50052
MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that the process can be told."""

    server: ServerConfig
    database: DatabaseConfig
    stock: DatabaseConfig
    """For StockService alone: whatever is read in the catalogue, orders get their stock."""
    search: DatabaseConfig
    """For searches alone, which may read every product."""
    telemetry: TelemetryConfig

    @classmethod
    def from_env(cls, env: Env) -> Self:
        database = DatabaseConfig.from_env(env)
        return cls(
            server=ServerConfig.from_env(env, grpc_port=PORT),
            database=database,
            stock=replace(database, pool_size=env.integer("STOCK_POOL_SIZE", 4, 1, 100)),
            search=database.for_searches(env),
            telemetry=TelemetryConfig.from_env(env),
        )


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Server]:
    """The running service. It listens at once and is ready when its database is; on leaving it drains, lets running
    calls finish, and releases everything in reverse order."""
    schema = Schema.load(MIGRATIONS)
    database = Database(config.database, NAME)
    stock = Database(config.stock, f"{NAME} stock")
    searches = Database(config.search, f"{NAME} search", ONE_PROCESSOR)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        stack.callback(telemetry.close)
        for each in (database, stock, searches):
            stack.push_async_callback(each.close)
            await each.open()
        server = Server(config.server, telemetry, [service.NAME, stock_service.NAME])
        store = ProductStore(database, searches, most_waiting=config.database.pool_waiting)
        server.add(
            product_pb2_grpc.add_ProductServiceServicer_to_server,
            ProductService(store, config.server.caller_header),
        )
        server.add(stock_pb2_grpc.add_StockServiceServicer_to_server, StockService(StockStore(stock)))

        async def problem() -> str:
            # Of searches it is not asked: too many of them are no reason to be called less for anything else.
            return await stock.problem(schema) or await database.problem(schema)

        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(problem))
        stack.callback(watching.cancel)
        yield server
        watching.cancel()
        await server.drain()


async def run() -> None:
    async with serving(Config.from_env(Env(os.environ))):
        await until_stopped()


async def migrate() -> None:
    config = DatabaseConfig.from_env(Env(os.environ))
    await apply_migrations(ConnectionInfo(config, f"{NAME} migrate"), MIGRATIONS)


if __name__ == "__main__":
    sys.exit(main(NAME, {"run": run, "migrate": migrate}, sys.argv[1:], default="run"))
