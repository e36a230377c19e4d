"""grpc.health.v1 that can be watched, and whose watchers keep no process from going away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIVENESS = "liveness"
"""The health name of the process itself; the services' own names say whether to call it."""

CALLS = ""
"""The health name that the shop's own clients watch: whether calls are answered."""

READINESS = "readiness"
"""The health name that Kubernetes asks for: that of the services, but maybe later (see `Server.set_ready`)."""

Status = health_pb2.HealthCheckResponse


class LastingProblem(str):
    """What keeps a service from working and does not pass by itself: its readiness falls at once."""


class Health(health_pb2_grpc.HealthServicer):
    """What a process says about its services. It is told with `set`."""

    def __init__(self, interval: float | None = None) -> None:
        """`interval` is in seconds: how often a watched status is looked at that changes by itself."""
        super().__init__()
        self._interval = interval
        self._own: dict[str, int] = {}
        self._leaving = False
        self._closed = False
        self._changed = asyncio.Event()

    async def set(self, service: str, status: int) -> None:
        if not self._leaving:
            self._own[service] = status
            self._tell()

    async def enter_graceful_shutdown(self) -> None:
        """The services and READINESS are NOT_SERVING from here on, which sends Envoy and Kubernetes elsewhere.

        The process itself and CALLS are not: calls are answered until the server closes. gRPC clients ask DNS for
        others when a connection ends, and not when a peer says NOT_SERVING; they may know of none. Watchers stay, too:
        clients that balance by health would ask again at once, and all the time.
        """
        self._own.update({name: Status.NOT_SERVING for name in self._own if name not in (LIVENESS, CALLS)})
        self._leaving = True
        self._tell()

    def close(self) -> None:
        """Ends all watches, for which the end of the server would wait."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def status(self, name: str) -> int | None:
        """How a service is; None if there is none of that name."""
        return self._own.get(name)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        status = await self.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return Status(status=status)

    async def Watch(  # a generator, which tracing can wrap and an end can reach
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Ends when the server closes, which would otherwise wait for it."""
        sent = None
        while True:
            closed, changed = self._closed, self._changed
            status = await self.status(request.service)
            if status is None:
                status = Status.SERVICE_UNKNOWN
            if status != sent:
                yield Status(status=status)
                sent = status
            if closed:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await changed.wait()
