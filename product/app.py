"""The product service as a whole: its parts, and the order in which they start and stop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shop.product.v1 import product_pb2_grpc, stock_pb2_grpc

from product import service, stock_service
from product.config import Config
from product.metrics import measure
from product.overdue_holds import OVERDUE_POLL_INTERVAL, OverdueHoldReader
from product.service import ProductService
from product.stock_batches import StockBatches
from product.stock_service import StockService
from product.stock_store import StockStore
from product.store import ProductStore
from runtime.access.credential import Credential
from runtime.access.opening import open_gate
from runtime.database import ONE_PROCESSOR, Database
from runtime.replica import POLL_INTERVAL, PrimaryLog, Replica, ReplicaWatch
from runtime.schema import Schema
from runtime.server import Server
from runtime.supervise import Job, supervised
from runtime.telemetry.parts import measure_databases, measure_jobs, measure_server
from runtime.telemetry.process import Telemetry
from runtime.worker import Worker

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
    primary_log = PrimaryLog(database, config.max_lag)
    replicas = _replicas(config, primary_log, database, searches)
    pools = [each.pool for each in (database, stock, searches)]
    for pool in pools:
        pool.on_new_server += [other.note_server for other in pools if other is not pool]
    credential = Credential(config.access)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        await stack.enter_async_context(telemetry.serving(config.server.host))
        databases = (database, stock, searches, *replicas)
        for each in databases:
            stack.push_async_callback(each.close)
            await each.open()
        measure_databases(telemetry.metrics, *databases)
        gate = await stack.enter_async_context(open_gate(config.access, credential))
        server = Server(config.server, telemetry, gate, [service.NAME, stock_service.NAME])
        measure_server(telemetry.metrics, server, gate)
        holds = StockStore(stock)
        batches = StockBatches(holds)
        overdue = OverdueHoldReader(holds)
        measure(telemetry.metrics, batches, overdue, replicas)
        store = ProductStore(database, searches, max_waiting=config.database.pool_waiting)
        copy = ProductStore(*replicas, max_waiting=config.database.pool_waiting) if replicas else store
        server.add(product_pb2_grpc.add_ProductServiceServicer_to_server, ProductService(store, copy))
        server.add(stock_pb2_grpc.add_StockServiceServicer_to_server, StockService(holds, batches))

        async def check() -> str:
            # The search pool is left out: too many searches are no reason to send other calls elsewhere. So are the
            # replicas: without them the primary is read.
            return await stock.check(schema) or await database.check(schema)

        async def has_schema() -> bool:
            return not await stock.check(schema)

        reader = Worker("overdue-hold reader", overdue.step, OVERDUE_POLL_INTERVAL)
        # It reads for metrics alone.
        jobs = [Job("the overdue-hold reader", reader.run, has_schema)] if telemetry.metrics.enabled else []
        watch = Worker("replica watch", ReplicaWatch(primary_log, replicas).step, POLL_INTERVAL)
        if replicas:
            jobs.append(Job("the replica watch", watch.run))
        measure_jobs(telemetry.metrics, jobs, [reader, watch])
        await stack.enter_async_context(supervised(*jobs))
        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(check))
        stack.callback(watching.cancel)
        yield server
        watching.cancel()
        await server.drain()


def _replicas(
    config: Config, primary_log: PrimaryLog, database: Database, searches: Database
) -> tuple[Replica, Replica] | tuple[()]:
    """Returns the connections to replicas, for all but searches and for searches; empty if there are no replicas."""
    if config.replicas is None or config.replica_searches is None:
        return ()
    return (
        Replica(config.replicas, f"{NAME} replica", primary=database, primary_log=primary_log),
        Replica(
            config.replica_searches,
            f"{NAME} replica search",
            ONE_PROCESSOR,
            primary=searches,
            primary_log=primary_log,
        ),
    )
