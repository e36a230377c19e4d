"""Asks the order service whether a client may follow an order. The sidecar itself has no keys."""

import asyncio
import logging

import grpc
from aiohttp import web
from shop.order.v1.status_feed_pb2 import AuthorizeStreamRequest
from shop.order.v1.status_feed_pb2_grpc import StatusFeedServiceStub

from runtime.access.caller_hash import CallerHash
from runtime.access.credential import Credential
from runtime.access.gate import AUTHORIZATION, CREDENTIAL_REQUIRED, ORDER_TICKET
from runtime.errors import ApiError, known_details, parse_rpc_error, unavailable
from runtime.logs import LogOnce
from runtime.telemetry.trace_context import outgoing
from sse.config import Limits, Timing
from sse.streams import wire

log = logging.getLogger(__name__)

AUTHORIZE = "shop.order.v1.StatusFeedService/AuthorizeStream"
"""The full name of the method, for the retries of the channel."""

TICKET_PARAMETER = "ticket"
"""The query parameter with a ticket from CreateOrderTicket."""

_PASSED_ON = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
"""The codes of errors that a client gets as they are. Those that gRPC itself makes have no details."""


class Authorization:
    """Checks what clients have sent."""

    def __init__(self, channel: grpc.aio.Channel, credential: Credential, limits: Limits, timing: Timing) -> None:
        self._stub = StatusFeedServiceStub(channel)
        self._credential = credential
        self._hash = CallerHash(credential)
        self._timeout = timing.authorization_timeout
        # After a restart thousands of browsers come back at once. Waiting here costs less than running calls.
        self._slots = asyncio.Semaphore(limits.authorizations)
        self._refused = LogOnce(log, logging.ERROR)

    async def check(self, request: web.Request, order_id: str) -> str:
        """Returns the subject that a client's token stands for; empty if it has a ticket only.

        Args:
            request: The client's request.
            order_id: The order that it wants to follow, a UUID in lower case.

        Raises:
            ApiError: The client may not follow the order, or the order service cannot say so now.
        """
        sent = AuthorizeStreamRequest(
            order_id=order_id,
            authorization=_texts(request.headers.getall(AUTHORIZATION, [])),
            order_ticket=_texts(request.headers.getall(ORDER_TICKET, [])),
            stream_ticket="".join(_texts(request.query.getall(TICKET_PARAMETER, []))),
        )
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                metadata = (*self._credential.metadata(), *outgoing())
                response = await self._stub.AuthorizeStream(
                    sent, timeout=self._timeout, metadata=metadata, wait_for_ready=True
                )
                self._refused.reset()
                return response.caller
        except TimeoutError:
            raise _unavailable() from None
        except grpc.aio.AioRpcError as error:
            raise self._as_seen_by_client(error) from None

    def describe(self, subject: str) -> str:
        """Returns what stands for a caller in a log: a hash, or `guest` if there is a ticket only."""
        return self._hash(subject) if subject else "guest"

    def _as_seen_by_client(self, error: grpc.aio.AioRpcError) -> ApiError:
        code, reason, status = parse_rpc_error(error)
        if reason == CREDENTIAL_REQUIRED:
            # It is the sidecar that was refused, not the client.
            self._refused("the order service does not accept the credential in INTERNAL_CREDENTIALS")
        elif code in _PASSED_ON and status.details:
            return ApiError(code, error.details() or "", *known_details(status))
        return _unavailable()


def _texts(values: list[str]) -> list[str]:
    """Returns what a client sent as texts that a message can have."""
    # aiohttp decodes bytes that are not UTF-8 to surrogates.
    return [value.encode("utf-8", "replace").decode() for value in values]


def _unavailable() -> ApiError:
    return unavailable("the order service is unavailable", wire.retry_milliseconds() / 1000)
