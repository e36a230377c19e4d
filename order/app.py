"""The order service as a whole: its parts, and the order in which they start and stop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shop.order.v1 import order_pb2_grpc, status_feed_pb2_grpc

from order import service
from order.config import Config
from order.domain import Status, StatusEvent
from order.jobs import expired_holds, relay, retention
from order.jobs.expired_holds import ExpiredHoldReaper
from order.jobs.relay import Relay
from order.jobs.retention import Pruner
from order.live import feed_service
from order.live.authorizer import StreamAuthorizer
from order.live.feed_service import StatusFeedService
from order.live.logs import Followers, LogReader
from order.live.tailer import Tailer
from order.pairing import Pairing
from order.service import OrderService
from order.stock import SERVICE, Stock
from order.stock_client import StockClient
from order.store import WRITE_PROBE, OrderStore
from order.tickets import Tickets
from runtime.access.credential import Credential
from runtime.access.opening import open_gate
from runtime.client import channel, is_resolvable
from runtime.credentials import ConnectionInfo
from runtime.database import ONE_PROCESSOR, Database
from runtime.limits import CallerLimit
from runtime.schema import Schema
from runtime.server import Server
from runtime.supervise import Job, supervised
from runtime.telemetry import Telemetry
from runtime.topics import Topics
from runtime.worker import Worker

NAME = "order"
MIGRATIONS = Path(__file__).parent / "migrations"

LONG_LIVED_STREAMS = ("StreamOrderStatus", "FollowOrders")
"""The RPCs that stay open for as long as their client likes."""


@dataclass(frozen=True)
class Running:
    """The parts of a running service that tests read."""

    server: Server
    followers: Followers


@asynccontextmanager
async def serving(config: Config, stock: Stock | None = None) -> AsyncGenerator[Running, None]:
    """Runs the service.

    It listens at once and is ready when its database is, whether or not the product service is. On leaving it drains,
    ends the streams, lets running calls finish, and releases everything in reverse order.

    Args:
        config: The configuration.
        stock: Takes the place of the product service.
    """
    schema = Schema.load(MIGRATIONS)
    database = Database(config.database, NAME, write_probe=WRITE_PROBE)
    searches = Database(config.search, f"{NAME} search", ONE_PROCESSOR)
    store = OrderStore(database, searches, max_waiting=config.database.pool_waiting)
    topics: Topics[StatusEvent] = Topics()
    followers = Followers(topics)
    tailer = Tailer(ConnectionInfo(config.database, f"{NAME} tailer"), topics)
    credential = Credential(config.access)
    tickets = Tickets(config.tickets, guests=config.access.guests)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME, untraced_methods=LONG_LIVED_STREAMS)
        stack.callback(telemetry.close)
        for each in (database, searches):
            stack.push_async_callback(each.close)
            await each.open()
        if stock is None:
            to_product = channel(config.product_target, telemetry.client_interceptors(), idempotent=[SERVICE])
            stack.push_async_callback(to_product.close)
            stock = StockClient(to_product, credential)

        async def has_schema() -> bool:
            return not await database.check(schema)

        async def has_schema_and_product() -> bool:
            # On a first install, order may start before product's name exists.
            return await has_schema() and await is_resolvable(config.product_target)

        sender = Worker("relay", Relay(database, store, stock).step, relay.RELAY_POLL_INTERVAL)
        reaper = Worker(
            "expired-hold reaper",
            ExpiredHoldReaper(store, stock, Pairing(database, stock)).step,
            expired_holds.HOLD_POLL_INTERVAL,
        )
        pruner = Worker(
            "event log pruner", Pruner(database, config.event_retention_days).step, retention.PRUNE_INTERVAL
        )

        def on_status(status: Status) -> None:
            tailer.committed()
            if status is Status.CANCELLED:
                sender.wake()

        async def check() -> str:
            return await database.check(schema) or await tailer.check()

        gate = await stack.enter_async_context(open_gate(config.access, credential))
        server = Server(config.server, telemetry, gate, [service.NAME, feed_service.NAME])
        streams = CallerLimit(config.max_streams, config.max_streams_per_client)
        server.add(
            order_pb2_grpc.add_OrderServiceServicer_to_server,
            OrderService(store, stock, followers, streams, tickets, on_status),
        )
        authorizer = StreamAuthorizer(gate, tickets, store, guests=config.access.guests)
        server.add(
            status_feed_pb2_grpc.add_StatusFeedServiceServicer_to_server, StatusFeedService(followers, authorizer)
        )
        await stack.enter_async_context(
            supervised(
                Job("the relay", sender.run, has_schema_and_product),
                Job("the expired-hold reaper", reaper.run, has_schema_and_product),
                Job("the event log pruner", pruner.run, has_schema),
                Job("the status tailer", tailer.run, has_schema),
                Job("the log reader", LogReader(store, topics).run, has_schema),
            )
        )
        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(check, followers.set_available))
        stack.callback(watching.cancel)
        yield Running(server, followers)
        watching.cancel()
        await server.drain()
        followers.close()
