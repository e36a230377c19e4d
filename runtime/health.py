"""A gRPC health servicer whose Watch streams end at shutdown.

grpcio's own leaves them open, so `server.stop()` waits out its whole grace period.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIVENESS = "liveness"
"""The health name of the process itself. The names of its services tell whether to call them."""

CALLS = ""
"""The health name that the shop's own clients watch: whether the process accepts calls."""

READINESS = "readiness"
"""The health name that Kubernetes checks: as that of the services, but maybe later (see `Server.watch`)."""

Status = health_pb2.HealthCheckResponse


class LastingProblem(str):
    """A problem that does not pass by itself. A service that has one is unready at once."""


class Health(health_pb2_grpc.HealthServicer):
    """The health of the services of a process, as set with `set`."""

    def __init__(self, poll_interval: float | None = None) -> None:
        """Creates the servicer without any service.

        Args:
            poll_interval: Seconds between two reads of a watched status. None if a status changes only by `set`.
        """
        super().__init__()
        self._poll_interval = poll_interval
        self._statuses: dict[str, int] = {}
        self.is_shutting_down = False
        self._closed = False
        self._changed = asyncio.Event()

    async def set(self, service: str, status: int) -> None:
        """Sets the status of a service. During a shutdown it stays as it is."""
        if not self.is_shutting_down:
            self._statuses[service] = status
            self._notify()

    async def enter_graceful_shutdown(self) -> None:
        """Sets the services and READINESS to NOT_SERVING, so that Envoy and Kubernetes send calls elsewhere.

        LIVENESS and CALLS stay as they are, because calls are accepted until the server closes: gRPC clients resolve
        the name again when a connection ends, but not when a peer is NOT_SERVING, and they may know no other peer.
        Watch streams stay open, because clients that balance by health would reopen them again and again.
        """
        statuses = {name: Status.NOT_SERVING for name in self._statuses if name not in (LIVENESS, CALLS)}
        self._statuses.update(statuses)
        self.is_shutting_down = True
        self._notify()

    def close(self) -> None:
        """Ends all Watch streams. The server would wait for them otherwise."""
        self._closed = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def status(self, name: str) -> int | None:
        """Returns the status of a service; None if there is no such service."""
        return self._statuses.get(name)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """Returns the status of a service, or fails with NOT_FOUND."""
        status = await self.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return Status(status=status)

    async def Watch(  # a generator, so that tracing can wrap it and `close` can end it
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Sends the status, and each change of it, until `close`."""
        sent: int | None = None
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
                async with asyncio.timeout(self._poll_interval):
                    await changed.wait()
