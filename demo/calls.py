"""What the demo's calls to the services have in common."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from runtime.backoff import Backoff
from runtime.cli import CommandError

CALL_TIMEOUT = 5.0
"""Seconds that one call may take."""

RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""The codes after which the same call may succeed later."""

CONFLICTS = {grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}
"""The codes that a call gets when another caller has changed the resource first."""

FIRST_RETRY, LAST_RETRY = 0.2, 1.0
"""The shortest and the longest pause between two tries of a call, in seconds."""


class Retries:
    """Decides after a failed call whether it is tried again."""

    def __init__(self, service: str, timeout: float) -> None:
        """Initializes the retries, of which the last one begins at most `timeout` seconds from now.

        `service` is the name of the service that is called, for errors.
        """
        self._service = service
        self._deadline = time.monotonic() + timeout
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)

    async def wait(self, error: grpc.aio.AioRpcError) -> None:
        """Waits before the next try. Raises CommandError if there is none."""
        if error.code() not in RETRYABLE or time.monotonic() > self._deadline:
            raise CommandError(f"the {self._service} service returned {error.code().name}: {error.details()}") from None
        await asyncio.sleep(self._backoff.next())


class Authorization(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends a token with each call."""

    def __init__(self, token: Callable[[], str]) -> None:
        """`token` returns the token of a call."""
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Adds the header to a call."""
        header = ("authorization", f"Bearer {self._token()}")
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), header)
        return await continuation(client_call_details._replace(metadata=metadata), request)
