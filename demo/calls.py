"""What the demo's calls to the services have in common."""

from collections.abc import Callable
from typing import Any

import grpc

CALL_TIMEOUT = 5.0
"""Seconds that one call may take."""

RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""The codes after which the same call may succeed later."""

CONFLICTS = {grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}
"""The codes that a call gets when another caller has changed the resource first."""


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
