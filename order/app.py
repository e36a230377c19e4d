"""The order service as a whole: its parts, and the order in which they start and stop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shop.cart.v1 import cart_pb2_grpc
from shop.order.v1 import order_pb2_grpc, status_feed_pb2_grpc

from order import service
from order.cart import service as cart_service
from order.cart.merge import Merge
from order.cart.service import CartService
from order.cart.store import CartStore
from order.config import Config
from order.domain import Order, Status, StatusEvent
from order.jobs import backlog, expired_carts, expired_holds, relay, retention
from order.jobs.backlog import Backlog
from order.jobs.expired_carts import CartPurger
from order.jobs.expired_holds import ExpiredHoldReaper
from order.jobs.relay import Relay
from order.jobs.retention import Pruner
from order.live import feed_service
from order.live.authorizer import StreamAuthorizer
from order.live.feed_service import StatusFeedService
from order.live.logs import Followers, LogReader
from order.live.tailer import Tailer
from order.metrics import Parts, measure
from order.outcomes import Outcomes
from order.pairing import Pairing
from order.product_calls import ProductCalls
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
from runtime.telemetry.parts import measure_batches, measure_databases, measure_jobs, measure_server
from runtime.telemetry.process import Telemetry
from runtime.topics import Topics
from runtime.worker import Worker

NAME = "order"
MIGRATIONS = Path(__file__).parent / "migrations"


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
    carts = CartStore(database, max_waiting=config.database.pool_waiting)
    topics: Topics[StatusEvent] = Topics()
    followers = Followers(topics)
    tailer = Tailer(ConnectionInfo(config.database, f"{NAME} tailer"), topics)
    database.pool.on_new_server += [searches.pool.note_server, tailer.follow_primary]
    database.readiness.on_server_check.append(tailer.follow_primary)
    credential = Credential(config.access)
    tickets = Tickets(config.tickets, guests=config.access.guests)
    outcomes = Outcomes()
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        await stack.enter_async_context(telemetry.serving(config.server.host))
        for each in (database, searches):
            stack.push_async_callback(each.close)
            await each.open()
        measure_databases(telemetry.metrics, database, searches)
        measure_batches(telemetry.metrics, *store.batchers, *carts.batchers)
        if stock is None:
            to_product = channel(config.product_target, idempotent=[SERVICE])
            stack.push_async_callback(to_product.close)
            stock = StockClient(to_product, ProductCalls(credential, telemetry.metrics))

        async def has_schema() -> bool:
            return not await database.check(schema)

        async def has_schema_and_product() -> bool:
            # On a first install, order may start before product's name exists.
            return await has_schema() and await is_resolvable(config.product_target)

        message_relay = Relay(database, store, stock)
        hold_reaper = ExpiredHoldReaper(store, stock, Pairing(database, stock))
        cart_purger = CartPurger(database)
        waiting = Backlog(database)
        sender = Worker("relay", message_relay.step, relay.RELAY_POLL_INTERVAL)
        reaper = Worker("expired-hold reaper", hold_reaper.step, expired_holds.HOLD_POLL_INTERVAL)
        pruner = Worker(
            "event log pruner", Pruner(database, config.event_retention_days).step, retention.PRUNE_INTERVAL
        )
        purger = Worker("cart purger", cart_purger.step, expired_carts.PURGE_INTERVAL)
        backlog_reader = Worker("backlog reader", waiting.step, backlog.BACKLOG_POLL_INTERVAL)

        def on_change(order: Order) -> None:
            outcomes.changed(order)
            tailer.committed()
            if order.status is Status.CANCELLED:
                sender.wake()

        async def check() -> str:
            return await database.check(schema) or await tailer.check()

        gate = await stack.enter_async_context(open_gate(config.access, credential))
        server = Server(config.server, telemetry, gate, [service.NAME, cart_service.NAME, feed_service.NAME])
        measure_server(telemetry.metrics, server, gate)
        streams = CallerLimit(config.max_streams, config.max_streams_per_client)
        server.add(
            order_pb2_grpc.add_OrderServiceServicer_to_server,
            OrderService(store, stock, followers, streams, tickets, on_change, outcomes),
        )
        server.add(
            cart_pb2_grpc.add_CartServiceServicer_to_server,
            CartService(carts, Merge(database, carts), store, stock, tickets, on_change, outcomes),
        )
        authorizer = StreamAuthorizer(gate, tickets, store, guests=config.access.guests)
        server.add(
            status_feed_pb2_grpc.add_StatusFeedServiceServicer_to_server, StatusFeedService(followers, authorizer)
        )
        jobs = [
            Job("the relay", sender.run, has_schema_and_product),
            Job("the expired-hold reaper", reaper.run, has_schema_and_product),
            Job("the event log pruner", pruner.run, has_schema),
            Job("the cart purger", purger.run, has_schema),
            Job("the status tailer", tailer.run, has_schema),
            Job("the log reader", LogReader(store, topics).run, has_schema),
        ]
        workers = [sender, reaper, pruner, purger]
        if telemetry.metrics.enabled:
            jobs.append(Job("the backlog reader", backlog_reader.run, has_schema))
            workers.append(backlog_reader)
        measure_jobs(telemetry.metrics, jobs, workers)
        parts = Parts(
            outcomes=outcomes,
            carts=carts,
            backlog=waiting,
            relay=message_relay,
            reaper=hold_reaper,
            purger=cart_purger,
            tailer=tailer,
            followers=followers,
            streams=streams,
        )
        measure(telemetry.metrics, parts)
        await stack.enter_async_context(supervised(*jobs))
        await server.start()
        stack.push_async_callback(server.stop)
        watching = asyncio.create_task(server.watch(check, followers.set_available))
        stack.callback(watching.cancel)
        yield Running(server, followers)
        watching.cancel()
        await server.drain()
        followers.close()
