"""The order process: `python -m order run` serves, `python -m order migrate` brings the schema up to date, and
`python -m order reconcile [--help]` mends what a restored database has left inconsistent."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from shop.order.v1 import order_pb2_grpc, status_feed_pb2_grpc

from order import catalog, commands, feed_service, service
from order.catalog import Stock
from order.domain import Status
from order.feed_service import StatusFeedService
from order.follow import Followers, Logs
from order.identity import Pairing
from order.outbox import Relay
from order.product_stock import ProductStock
from order.reconcile import Reconciler
from order.retention import Pruner
from order.service import OrderService
from order.store import WRITE_PROBE, OrderStore
from order.tail import Tailer
from runtime.client import channel, found, target
from runtime.config import DatabaseConfig, Env, ServerConfig, TelemetryConfig
from runtime.credentials import ConnectionInfo
from runtime.database import ONE_PROCESSOR, Database
from runtime.forever import forever
from runtime.limits import CallerLimit
from runtime.migrate import migrate as apply_migrations
from runtime.process import main
from runtime.schema import Schema
from runtime.server import READINESS_INTERVAL, Server, until_stopped
from runtime.telemetry import Telemetry

NAME = "order"
PORT = 50053
MIGRATIONS = Path(__file__).parent / "migrations"

Job = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that the process can be told."""

    server: ServerConfig
    database: DatabaseConfig
    search: DatabaseConfig
    """For lists of orders alone: whatever is looked for, orders are placed and moved on."""
    telemetry: TelemetryConfig
    product_target: str
    event_retention_days: int
    """Days for which the event log of a finished order is kept."""
    max_streams: int
    """StreamOrderStatus calls at once."""
    max_streams_per_client: int
    """Those of one client address; 0: as many as in all."""

    @classmethod
    def from_env(cls, env: Env) -> Self:
        database = DatabaseConfig.from_env(env)
        return cls(
            server=ServerConfig.from_env(env, grpc_port=PORT),
            database=database,
            search=database.for_searches(env),
            telemetry=TelemetryConfig.from_env(env),
            product_target=target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", "dns:///localhost:50052")),
            event_retention_days=env.integer("EVENT_RETENTION_DAYS", 90, 1, 36_500),
            max_streams=env.integer("ORDER_MAX_STREAMS", 2_000, 1, 100_000),
            max_streams_per_client=env.integer("ORDER_MAX_STREAMS_PER_CLIENT", 100, 0, 100_000),
        )


@dataclass(frozen=True)
class Running:
    """The parts of a running service that can be looked at from outside."""

    server: Server
    followers: Followers


@asynccontextmanager
async def serving(config: Config, stock: Stock | None = None) -> AsyncIterator[Running]:
    """The running service. It listens at once and is ready when its database is, whatever the product service does; on
    leaving it drains, ends the streams, lets running calls finish, and releases everything in reverse order. `stock`
    takes the place of the product service."""
    schema = Schema.load(MIGRATIONS)
    database = Database(config.database, NAME, write_probe=WRITE_PROBE)
    searches = Database(config.search, f"{NAME} search", ONE_PROCESSOR)
    store = OrderStore(database, searches, most_waiting=config.database.pool_waiting)
    logs = Logs(store)
    followers = Followers(logs.topics)
    tailer = Tailer(ConnectionInfo(config.database, f"{NAME} tailer"), logs.topics)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        stack.callback(telemetry.close)
        for each in (database, searches):
            stack.push_async_callback(each.close)
            await each.open()
        if stock is None:
            to_product = channel(config.product_target, telemetry.client_interceptors(), idempotent=[catalog.SERVICE])
            stack.push_async_callback(to_product.close)
            stock = ProductStock(to_product)
        relay = Relay(database, store, stock)

        def changed(status: Status) -> None:
            tailer.committed()
            if status is Status.CANCELLED:
                relay.wake()

        async def problem() -> str:
            return await database.problem(schema) or await tailer.problem()

        server = Server(config.server, telemetry, [service.NAME, feed_service.NAME])
        streams = CallerLimit(config.max_streams, config.max_streams_per_client)
        server.add(
            order_pb2_grpc.add_OrderServiceServicer_to_server,
            OrderService(store, stock, followers, config.server.caller_header, streams, changed),
        )
        server.add(status_feed_pb2_grpc.add_StatusFeedServiceServicer_to_server, StatusFeedService(followers))
        reconciler = Reconciler(store, stock, Pairing(database, stock))
        # On a first install order is up before product's name is.
        named = partial(found, config.product_target)
        jobs: dict[str, Job] = {
            "the status tailer": tailer.run,
            "reading event logs": logs.run,
            "the relay": partial(_once, named, relay.run),
            "the reconciler": partial(_once, named, reconciler.run),
            "the pruner": Pruner(database, config.event_retention_days).run,
        }
        stack.push_async_callback(_end, asyncio.create_task(_work(jobs, lambda: database.problem(schema))))
        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(problem, followers.serve))
        stack.callback(watching.cancel)
        yield Running(server, followers)
        watching.cancel()
        await server.drain()
        followers.close()


async def _work(jobs: Mapping[str, Job], problem: Callable[[], Awaitable[str]]) -> None:
    """Runs jobs, by name, for ever, once the database and its schema are there."""

    async def there() -> bool:
        return not await problem()

    async with asyncio.TaskGroup() as group:
        for name, job in jobs.items():
            group.create_task(forever(name, partial(_once, there, job)))


async def _once(there: Callable[[], Awaitable[bool]], job: Job) -> None:
    """Runs a job once what it needs is there."""
    while not await there():  # noqa: ASYNC110 - neither a database nor a name sets an event
        await asyncio.sleep(READINESS_INTERVAL)
    await job()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def run() -> None:
    async with serving(Config.from_env(Env(os.environ))):
        await until_stopped()


async def migrate() -> None:
    config = DatabaseConfig.from_env(Env(os.environ))
    await apply_migrations(ConnectionInfo(config, f"{NAME} migrate"), MIGRATIONS)


async def reconcile(options: commands.Options) -> None:
    config = Config.from_env(Env(os.environ))
    await commands.reconcile(config.database, config.product_target, options)


if __name__ == "__main__":
    name, options = sys.argv[1:2], commands.Options()
    if name == ["reconcile"]:
        options = commands.parse(sys.argv[2:])
    else:
        name = sys.argv[1:]
    sys.exit(
        main(NAME, {"run": run, "migrate": migrate, "reconcile": partial(reconcile, options)}, name, default="run")
    )
