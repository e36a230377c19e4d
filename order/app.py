"""The order service as a whole: its parts, and the order in which they start and stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shop.order.v1 import order_pb2_grpc, status_feed_pb2_grpc

from order import service
from order.config import Config
from order.domain import Status, StatusEvent
from order.jobs.expired_holds import ExpiredHoldReaper
from order.jobs.relay import Relay
from order.jobs.retention import Pruner
from order.live import feed_service
from order.live.feed_service import StatusFeedService
from order.live.logs import Followers, LogReader
from order.live.tailer import Tailer
from order.pairing import Pairing
from order.service import OrderService
from order.stock import SERVICE, Stock
from order.stock_client import StockClient
from order.store import WRITE_PROBE, OrderStore
from runtime.client import channel, is_resolvable
from runtime.credentials import ConnectionInfo
from runtime.database import ONE_PROCESSOR, Database
from runtime.forever import forever
from runtime.limits import CallerLimit
from runtime.schema import Schema
from runtime.server import READINESS_INTERVAL, Server
from runtime.telemetry import Telemetry
from runtime.topics import Topics

NAME = "order"
MIGRATIONS = Path(__file__).parent / "migrations"

Job = Callable[[], Coroutine[Any, Any, None]]


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
    topics: Topics[StatusEvent] = Topics()
    followers = Followers(topics)
    tailer = Tailer(ConnectionInfo(config.database, f"{NAME} tailer"), topics)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        stack.callback(telemetry.close)
        for each in (database, searches):
            stack.push_async_callback(each.close)
            await each.open()
        if stock is None:
            to_product = channel(config.product_target, telemetry.client_interceptors(), idempotent=[SERVICE])
            stack.push_async_callback(to_product.close)
            stock = StockClient(to_product)
        relay = Relay(database, store, stock)

        def changed(status: Status) -> None:
            tailer.committed()
            if status is Status.CANCELLED:
                relay.wake()

        async def check() -> str:
            return await database.check(schema) or await tailer.check()

        server = Server(config.server, telemetry, [service.NAME, feed_service.NAME])
        streams = CallerLimit(config.max_streams, config.max_streams_per_client)
        server.add(
            order_pb2_grpc.add_OrderServiceServicer_to_server,
            OrderService(store, stock, followers, config.server.caller_header, streams, changed),
        )
        server.add(status_feed_pb2_grpc.add_StatusFeedServiceServicer_to_server, StatusFeedService(followers))
        reconciler = ExpiredHoldReaper(store, stock, Pairing(database, stock))
        # On a first install order is up before product's name is.
        named = partial(is_resolvable, config.product_target)
        jobs: dict[str, Job] = {
            "the status tailer": tailer.run,
            "the log reader": LogReader(store, topics).run,
            "the relay": partial(_once, named, relay.run),
            "the reconciler": partial(_once, named, reconciler.run),
            "the pruner": Pruner(database, config.event_retention_days).run,
        }
        stack.push_async_callback(_end, asyncio.create_task(_work(jobs, lambda: database.check(schema))))
        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(check, followers.set_available))
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
