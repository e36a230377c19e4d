"""The sidecar as a whole: its parts, and the order in which they start and stop."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from runtime import client
from runtime.access.credential import Credential
from runtime.access.opening import open_gate
from runtime.http import listen
from runtime.limits import CallerLimit
from runtime.server import Server
from runtime.supervise import Job, supervised
from runtime.telemetry.parts import measure_jobs, measure_server
from runtime.telemetry.process import Telemetry
from sse import edge, jwks
from sse.config import SidecarConfig
from sse.gc_tuner import GcTuner
from sse.metrics import measure
from sse.streams.authorization import AUTHORIZE, Authorization
from sse.streams.connections import Connections
from sse.streams.feed import Feed
from sse.streams.handler import StatusStreams

log = logging.getLogger(__name__)
http_log = logging.getLogger("sse.http")

NAME = "sse"

BACKLOG = 4096
"""Connections that may wait to be accepted: after a restart many browsers come back within seconds."""

MAX_HEADER_SIZE = 64 * 1024
"""Bytes of one header. The edge lets 32 KiB of headers through, so nothing is refused here."""

CLOSE_TIMEOUT = 5.0
"""Seconds that streams get to close."""


class WithoutRequestLines(logging.Filter):
    """Takes the text of malformed requests out of aiohttp's log: a ticket may be in the URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns true: the record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = "malformed request: %s", (type(error).__name__,)
            record.exc_info = record.exc_text = None
        return True


http_log.addFilter(WithoutRequestLines())


@dataclass(frozen=True)
class Running:
    """The parts of a running sidecar that can be looked at from outside."""

    server: Server
    runner: web.AppRunner
    connections: Connections
    feed: Feed

    @property
    def http_port(self) -> int:
        """The port of the streams, also where the configuration leaves the choice to the system (0)."""
        port: int = self.runner.addresses[0][1]
        return port

    @property
    def grpc_port(self) -> int:
        """The port of reflection and health, likewise."""
        return self.server.port


@asynccontextmanager
async def serving(config: SidecarConfig) -> AsyncGenerator[Running, None]:
    """Runs the sidecar.

    It is ready whatever the state of the services behind it. On leaving it drains, sends every browser elsewhere, and
    releases everything in reverse order.

    Raises:
        OSError: A port is taken.
    """
    credential = Credential(config.access)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(config.telemetry, NAME)
        await stack.enter_async_context(telemetry.serving(config.server.host))
        to_product = client.channel(config.product_target)
        to_order = client.channel(config.order_target, idempotent=[AUTHORIZE])
        stack.push_async_callback(to_product.close)
        stack.push_async_callback(to_order.close)
        connections = Connections(config.limits, config.timing.heartbeat_interval)
        feed = Feed(to_order, credential, config.timing)
        authorization = None
        if config.access.tokens:
            authorization = Authorization(to_order, credential, config.limits, config.timing)
        jobs = [
            Job("the status feed", feed.run),
            Job("closing lost streams", feed.close_lost_streams),
            Job("the heartbeat", connections.run_heartbeats),
            Job("the GC tuner", GcTuner(connections).run),
        ]
        measure_jobs(telemetry.metrics, jobs)
        await stack.enter_async_context(supervised(*jobs))
        order = edge.Upstream(to_order, edge.ORDER)
        upstreams = {edge.PRODUCT: edge.Upstream(to_product, edge.PRODUCT), edge.ORDER: order, edge.CART: order}
        gate = await stack.enter_async_context(open_gate(config.access, credential))
        server = Server(
            config.server,
            telemetry,
            gate,
            [],
            upstreams,
            health_servicer=edge.EdgeHealth(upstreams),
            descriptors=edge.public_descriptors(),
            watches=CallerLimit(config.limits.watches, config.limits.streams_per_client),
        )
        measure_server(telemetry.metrics, server, gate)
        stack.push_async_callback(server.stop)
        await server.start()
        streams = StatusStreams(config, feed.topics, connections, authorization, telemetry.traces)
        measure(telemetry.metrics, config.limits, connections, feed, streams.counts)
        application = streams.application()
        jwks.add_route(application, gate.keys)
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=http_log,
            # A browser that goes away ends its stream at once, also an idle one.
            handler_cancellation=True,
            shutdown_timeout=CLOSE_TIMEOUT,
            max_line_size=MAX_HEADER_SIZE,
            max_field_size=MAX_HEADER_SIZE,
        )
        stack.push_async_callback(runner.cleanup)
        await listen(runner, config.server.host, config.http_port, BACKLOG)
        log.info("listening on %s", config.server.address(config.http_port))
        await server.set_ready(True)
        yield Running(server, runner, connections, feed)
        await server.drain()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await connections.drain()
        except TimeoutError:
            log.warning("%d streams were still open at the end of the drain", len(connections))
