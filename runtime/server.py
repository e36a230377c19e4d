"""A gRPC server with reflection, health and an orderly end."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from runtime import reflection
from runtime.client import METADATA
from runtime.config import ServerConfig
from runtime.guard import Guarded
from runtime.health import LIVENESS, READINESS, Health, LastingProblem
from runtime.limits import AnswerLimit, CallerLimit, StreamLimitInterceptor
from runtime.peers import has_peers
from runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

READINESS_INTERVAL = 1.0
"""Seconds between two looks at what a service needs."""

PATIENCE = 30.0
"""Seconds for which a service that was ready stays so: a blip must not empty DNS and cut every stream."""

GOAWAY = 0.1
"""Seconds for the word that a connection ends to reach clients, before the watches of the health end."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

OPTIONS: Sequence[tuple[str, Any]] = (
    # One process owns its port: a second one is an error, not a sibling that takes half of the calls.
    ("grpc.so_reuseport", 0),
    # Clients may ping idle connections every five seconds; by default the server would hang up on them.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients look names up again now and then, so new replicas get calls; with no grace set, no stream is cut.
    ("grpc.max_connection_age_ms", 300_000),
    # A peer that died without a word is found within a minute, and its calls end. One ping a connection, however many
    # calls it has. By default core sends two pings at most where there is no data, and waits a minute for each.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The edge takes bodies of 160 KiB; the sidecar follows a thousand orders in one message of 45 kB.
    ("grpc.max_receive_message_length", 256 * 1024),
    *METADATA,
)


class Server:
    """One process's gRPC server."""

    def __init__(
        self,
        config: ServerConfig,
        telemetry: Telemetry,
        names: Sequence[str],
        more: Iterable[str] = (),
        *,
        health_servicer: Health | None = None,
        descriptors: DescriptorPool | None = None,
        watches: CallerLimit | None = None,
    ) -> None:
        """`names` are the full names of the services served, each with a health status; `more` are shown by reflection
        only. A server that speaks for others brings its own answers on health, and the descriptors that it shows;
        `watches` limits the streams of health and reflection, where strangers can open them."""
        self._config = config
        self._names = ["", *names]
        self._answers = AnswerLimit()
        interceptors = list(telemetry.server_interceptors())
        if watches is not None:
            interceptors.append(StreamLimitInterceptor(watches, ("/grpc.health.", "/grpc.reflection.")))
        self.grpc = grpc.aio.server(interceptors=interceptors, options=OPTIONS, compression=None)
        self._health = health_servicer or Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.add_to_server(self.grpc, (*names, *more, health.SERVICE_NAME), descriptors)
        self.ready = False
        self._settled = not config.ready_delay
        self.port = config.grpc_port
        """The port that it listens on, also where the configuration leaves the choice to the system (0)."""

    def add(self, register: Callable[[Any, Any], None], servicer: object) -> None:
        """Serves the methods of a service, each inside of `guard`. `register` is the generated
        `add_…Servicer_to_server`."""
        register(servicer, Guarded(self.grpc, self._answers))

    async def start(self) -> None:
        """Listens. The process is live; its services are not ready yet."""
        address = self._config.address(self._config.grpc_port)
        try:
            self.port = self.grpc.add_insecure_port(address)
        except RuntimeError:
            raise OSError(f"cannot listen on {address}: is the port taken?") from None
        await self._health.set(LIVENESS, _SERVING)
        await self.set_ready(False)
        await self.grpc.start()
        log.info("listening on %s", address)

    async def set_ready(self, ready: bool) -> None:
        """Says whether to call this process. READINESS, for Kubernetes, is late once: see `watch`."""
        self.ready = ready
        await self._health.set(READINESS, _SERVING if ready and self._settled else _NOT_SERVING)
        for name in self._names:
            await self._health.set(name, _SERVING if ready else _NOT_SERVING)

    async def watch(
        self, problem: Callable[[], Awaitable[str]], changed: Callable[[bool], None] = lambda ready: None
    ) -> None:
        """Keeps the readiness true, for ever. `problem` answers what keeps the service from working, or nothing;
        `changed` is told when the service gets ready or is so no longer.

        A new problem is logged once. One that comes after the service was ready counts after PATIENCE, and at once
        where it does not pass by itself.

        Kubernetes hears of the first time that the service is ready only `ready_delay` later, if other replicas are
        there: a disruption budget and a rollout leave these alone for as long as clients, who go by DNS and by each
        replica's own word, may not know of the new one.
        """
        clock = asyncio.get_running_loop().time
        said = ""
        well = clock() - PATIENCE
        settles_at: float | None = None
        while True:
            try:
                found = await problem()
            except Exception as error:
                log.exception("looking at the readiness failed")
                found = f"looking at it failed: {type(error).__name__}"
            if found != said:
                if found:
                    log.warning("not ready: %s" if not self.ready else "in trouble: %s", found)
                said = found
            if not found:
                well = clock()
                if not self.ready:
                    log.info("ready")
                    await self.set_ready(True)
                    changed(True)
                if not self._settled:
                    if settles_at is None:
                        peers = await has_peers(self._config.peers)
                        settles_at = clock() + (self._config.ready_delay if peers else 0)
                    if clock() >= settles_at:
                        self._settled = True
                        await self.set_ready(True)
            elif self.ready and (isinstance(found, LastingProblem) or clock() - well >= PATIENCE):
                log.error("no longer ready: %s", found)
                await self.set_ready(False)
                changed(False)
            await asyncio.sleep(READINESS_INTERVAL)

    async def drain(self) -> None:
        """Says NOT_SERVING and waits until DNS and the edge have seen it."""
        self.ready = False
        await self._health.enter_graceful_shutdown()
        if self._config.shutdown_delay:
            log.info("draining for %g s", self._config.shutdown_delay)
            await asyncio.sleep(self._config.shutdown_delay)

    async def stop(self) -> None:
        """Lets running calls finish. Streams have to be ended before, or this takes the whole grace."""
        stopping = asyncio.ensure_future(self.grpc.stop(self._config.shutdown_grace))
        # First the connections say that they end: a client whose watch alone ended would take this peer for ill.
        await asyncio.sleep(GOAWAY)
        self._health.close()
        await stopping


async def until_stopped() -> None:
    """Returns at the first SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    log.info("stopping")
