"""The sidecar as a whole: what it is made of, and the order in which it starts and goes away."""

import asyncio
import logging
import socket
from contextlib import AsyncExitStack
from typing import Self

from aiohttp import web

from runtime import client
from runtime.forever import forever
from runtime.limits import CallerLimit
from runtime.server import Server
from runtime.telemetry import Telemetry
from sse import edge
from sse.config import SidecarConfig
from sse.gc_tuner import GcTuner
from sse.streams.feed import Feed
from sse.streams.handler import StatusStreams
from sse.streams.stream import End, Streams

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that may wait to be accepted: after a restart many browsers come back within seconds."""

HEADER_SIZE = 64 * 1024
"""Bytes of one header; the edge lets 32 KiB of them through in all and refuses what is beyond, so nothing is refused
here."""

CLOSING = 5.0
"""Seconds that streams get to take their last bytes."""


class Sidecar:
    """One process: the SSE server, the feed behind it, and the edge's reflection and health."""

    def __init__(self, config: SidecarConfig, telemetry: Telemetry) -> None:
        self._config = config
        self._order = client.channel(config.order_target)
        self._product = client.channel(config.product_target)
        self.streams = Streams(config.limits, config.timing.heartbeat)
        self.feed = Feed(self._order, config.timing, lambda order_ids: self.streams.end(End.LOST, order_ids))
        self._runner = web.AppRunner(
            StatusStreams(config, self.feed, self.streams).application(),
            access_log=None,
            # A browser that goes away ends its stream at once, also an idle one.
            handler_cancellation=True,
            shutdown_timeout=CLOSING,
            max_line_size=HEADER_SIZE,
            max_field_size=HEADER_SIZE,
        )
        services = {
            edge.PRODUCT: edge.Upstream(self._product, edge.PRODUCT),
            edge.ORDER: edge.Upstream(self._order, edge.ORDER),
        }
        self._server = Server(
            config.server,
            telemetry,
            [],
            services,
            health_servicer=edge.EdgeHealth(services),
            descriptors=edge.public_descriptors(),
            watches=CallerLimit(config.limits.watches, config.limits.streams_per_client),
        )
        self._running = AsyncExitStack()

    @property
    def http_port(self) -> int:
        """The port that it listens on, also where the configuration leaves the choice to the system (0)."""
        port: int = self._runner.addresses[0][1]
        return port

    @property
    def grpc_port(self) -> int:
        """Likewise, of reflection and health."""
        return self._server.port

    async def start(self) -> None:
        """Listens. It is ready whatever the services behind it are: what passes, it answers by itself."""
        running = self._running
        running.push_async_callback(self._product.close)
        running.push_async_callback(self._order.close)
        jobs = {
            "the status feed": self.feed.run,
            "the heartbeat": self.streams.beat,
            "collecting garbage": GcTuner(self.streams).run,
        }
        for name, work in jobs.items():
            running.push_async_callback(_cancel, asyncio.create_task(forever(name, work)))
        running.push_async_callback(self._server.stop)
        await self._server.start()
        running.push_async_callback(self._runner.cleanup)
        await self._runner.setup()
        address = self._config.server.address(self._config.http_port)
        try:
            await self._site().start()
        except OSError:
            raise OSError(f"cannot listen on {address}: is the port taken?") from None
        log.info("listening on %s", address)
        await self._server.set_ready(True)

    def _site(self) -> web.BaseSite:
        host, port = self._config.server.host, self._config.http_port
        if host == "::" and socket.has_dualstack_ipv6():
            # asyncio would make a socket for IPv6 alone, and the edge asks 127.0.0.1.
            both = socket.create_server((host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
            return web.SockSite(self._runner, both, backlog=BACKLOG)
        return web.TCPSite(self._runner, host, port, backlog=BACKLOG)

    async def stop(self) -> None:
        """Says so, waits until the edge has seen it, sends every browser elsewhere, and closes all in reverse order."""
        await self._server.drain()
        try:
            async with asyncio.timeout(CLOSING):
                await self.streams.drain()
        except TimeoutError:
            log.warning("%d streams did not take their last bytes", len(self.streams))
        await self._running.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self._running.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
