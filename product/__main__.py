"""The product process: `python -m product run` serves, `python -m product migrate` brings the schema up to date."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
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
from runtime.database import Database
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
    telemetry: TelemetryConfig

    @classmethod
    def from_env(cls, env: Env) -> Self:
        return cls(
            server=ServerConfig.from_env(env, grpc_port=PORT),
            database=DatabaseConfig.from_env(env),
            telemetry=TelemetryConfig.from_env(env),
        )


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Server]:
    """The running service. It listens at once and is ready when its database is; on leaving it drains, lets running
    calls finish, and releases everything in reverse order."""
    schema = Schema.load(MIGRATIONS)
    database = Database(config.database, NAME)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        stack.callback(telemetry.close)
        stack.push_async_callback(database.close)
        await database.open()
        server = Server(config.server, telemetry, [service.NAME, stock_service.NAME])
        product_pb2_grpc.add_ProductServiceServicer_to_server(
            ProductService(ProductStore(database), config.server.caller_header), server.grpc
        )
        stock_pb2_grpc.add_StockServiceServicer_to_server(StockService(StockStore(database)), server.grpc)
        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(lambda: database.problem(schema)))
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
