"""A gRPC server with reflection, health and a graceful shutdown."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from runtime import reflection
from runtime.access.gate import Gate
from runtime.client import METADATA
from runtime.config import ServerConfig
from runtime.guard import Guarded
from runtime.health import LIVENESS, READINESS, Health, LastingProblem
from runtime.limits import CallerLimit, ResponseLimit, StreamLimitInterceptor
from runtime.peers import has_peers
from runtime.telemetry.process import Telemetry

log = logging.getLogger(__name__)

READINESS_INTERVAL = 1.0
"""Seconds between two checks of what a service needs."""

UNREADY_DELAY = 30.0
"""Seconds for which a service stays ready although a check fails: a short outage must not empty DNS and cut every
stream."""

GOAWAY_DELAY = 0.1
"""Seconds between telling clients that their connections end and ending the Watch streams of the health service."""

MAX_CONNECTION_AGE_MS = 10_000
"""The age at which connections end, so that new replicas get calls: a client asks DNS again only when a connection
ends. No call fails and no stream is cut, because no grace period is set."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

OPTIONS: Sequence[tuple[str, Any]] = (
    # A second process on the same port is an error. By default it would get half of the calls.
    ("grpc.so_reuseport", 0),
    # Clients may ping idle connections every five seconds. By default the server would close these connections.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
    # A peer that died without closing its connections is noticed within a minute, and its calls end. That takes one
    # ping a connection, however many calls it has. By default grpc sends at most two pings on an idle connection, and
    # waits a minute for each.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The edge accepts bodies of 160 KiB.
    ("grpc.max_receive_message_length", 256 * 1024),
    *METADATA,
)


class Server:
    """The gRPC server of a process."""

    def __init__(
        self,
        config: ServerConfig,
        telemetry: Telemetry,
        gate: Gate,
        services: Sequence[str],
        reflected: Iterable[str] = (),
        *,
        health_servicer: Health | None = None,
        descriptors: DescriptorPool | None = None,
        watches: CallerLimit | None = None,
    ) -> None:
        """Prepares the server; it listens when it is started.

        Args:
            config: Where to listen, and how to shut down.
            telemetry: Traces, measures and logs calls.
            gate: Decides who may call.
            services: The full names of the services of this process. Each has a health status.
            reflected: The full names of services that only reflection lists.
            health_servicer: The health service, if it is not about the services of this process.
            descriptors: What reflection describes; by default all that the process knows.
            watches: Limits the streams of health and reflection, if the public can open them.
        """
        self._config = config
        self._names = ["", *services]
        interceptors: list[grpc.aio.ServerInterceptor] = []
        if watches is not None:
            interceptors.append(StreamLimitInterceptor(watches, ("/grpc.health.", "/grpc.reflection.")))
        self.grpc = grpc.aio.server(interceptors=interceptors, options=OPTIONS, compression=None)
        # Nothing is added to the server but by this: so there is no method without a rule.
        self._guarded = Guarded(self.grpc, gate, ResponseLimit(), telemetry.calls, telemetry.traces)
        self._health = health_servicer or Health()
        self.add(health_pb2_grpc.add_HealthServicer_to_server, self._health)
        if config.reflection:
            reflection.add_to_server(self._guarded, (*services, *reflected, health.SERVICE_NAME), descriptors)
        self.ready = False
        """Whether calls succeed, as far as is known."""
        self._ready_delay_over = not config.ready_delay
        self.port = config.grpc_port
        """The port that it listens on. If the configuration says 0, the system has chosen it."""

    def add(self, register: Callable[[Any, Any], None], servicer: object) -> None:
        """Serves a service. Each of its methods runs inside `guard`.

        Args:
            register: The generated function `add_…Servicer_to_server`.
            servicer: The service.
        """
        register(servicer, self._guarded)

    async def start(self) -> None:
        """Listens. The process is live; its services are not ready yet.

        Raises:
            OSError: It cannot listen on its address, usually because the port is taken.
        """
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
        """Sets whether this process is to be called. READINESS, for Kubernetes, may follow later: see `watch`."""
        self.ready = ready
        await self._health.set(READINESS, _SERVING if ready and self._ready_delay_over else _NOT_SERVING)
        for name in self._names:
            await self._health.set(name, _SERVING if ready else _NOT_SERVING)

    async def watch(
        self, check: Callable[[], Awaitable[str]], on_change: Callable[[bool], None] = lambda ready: None
    ) -> None:
        """Keeps the readiness up to date, until it is cancelled.

        A problem is logged when it is new. If the service was ready, it stays so for UNREADY_DELAY seconds, or until a
        LastingProblem.

        If there are other replicas, Kubernetes learns `ready_delay` seconds late that the service is ready for the
        first time. Until then a disruption budget and a rollout keep the other replicas, because clients, who rely on
        DNS and on the health of each replica, may not know the new one yet.

        Args:
            check: Returns what keeps the service from working, as one line for the log; empty if nothing does.
            on_change: Called with the new readiness when it has changed.
        """
        clock = asyncio.get_running_loop().time
        last_problem = ""
        success_time = clock() - UNREADY_DELAY
        ready_delay_end: float | None = None
        while True:
            try:
                problem = await check()
            except Exception as error:
                log.exception("the readiness check failed")
                problem = f"the readiness check failed: {type(error).__name__}"
            if problem and problem != last_problem:
                log.warning("degraded: %s" if self.ready else "not ready: %s", problem)
            last_problem = problem
            if not problem:
                success_time = clock()
                if not self.ready:
                    log.info("ready")
                    await self.set_ready(True)
                    on_change(True)
                if not self._ready_delay_over:
                    if ready_delay_end is None:
                        peers = await has_peers(self._config.peers)
                        ready_delay_end = clock() + (self._config.ready_delay if peers else 0)
                    if clock() >= ready_delay_end:
                        self._ready_delay_over = True
                        await self.set_ready(True)
            elif self.ready and (isinstance(problem, LastingProblem) or clock() - success_time >= UNREADY_DELAY):
                log.error("no longer ready: %s", problem)
                await self.set_ready(False)
                on_change(False)
            await asyncio.sleep(READINESS_INTERVAL)

    async def drain(self) -> None:
        """Reports NOT_SERVING, and waits until DNS and the edge have noticed."""
        self.ready = False
        await self._health.enter_graceful_shutdown()
        if self._config.shutdown_delay:
            log.info("draining for %g s", self._config.shutdown_delay)
            await asyncio.sleep(self._config.shutdown_delay)

    async def stop(self) -> None:
        """Lets running calls finish, and stops. Streams have to be ended before, or it takes the whole grace period."""
        stopping = asyncio.ensure_future(self.grpc.stop(self._config.shutdown_grace))
        # Clients must learn first that their connections end. If only its Watch stream ended, a client would take this
        # process for unhealthy.
        await asyncio.sleep(GOAWAY_DELAY)
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
