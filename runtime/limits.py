"""Limits on the resources of a process, in all and for each caller."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, contextmanager
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc

from runtime.access.caller import current
from runtime.errors import ApiError, resource_exhausted
from runtime.headers import header_values

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

EXTERNAL_ADDRESS = "x-envoy-external-address"
"""The header in which the edge passes the address of the caller. The edge removes it from requests of clients."""

IPV6_PREFIX_LENGTH = 64
"""How many bits of an IPv6 address identify a caller. A caller can choose the rest freely."""


def caller_of(address: str) -> str:
    """Returns which caller an address belongs to: the address itself, or its /64 network if it is IPv6."""
    try:
        parsed = ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> (128 - IPV6_PREFIX_LENGTH) << (128 - IPV6_PREFIX_LENGTH)))


def caller_of_call(context: Context) -> str:
    """Returns who makes a call, for limits: its token, else the address that the edge names, else the peer."""
    if subject := current().subject:
        return f"sub {subject}"
    for address in header_values(context, EXTERNAL_ADDRESS):
        return caller_of(address)
    scheme, _, address = unquote(context.peer()).partition(":")
    return caller_of(address.rpartition(":")[0]) if scheme in ("ipv4", "ipv6") else ""


class CallerLimit:
    """Limits how many streams are open at once, in all and for each caller."""

    def __init__(self, total: int, per_caller: int, what: str = "streams") -> None:
        """Sets the limits.

        Args:
            total: How many may be open in all.
            per_caller: How many may be open for one caller; 0 for no limit of its own.
            what: What is counted, for the error message.
        """
        self.total = total
        self.count = 0
        """How many are open."""
        self._per_caller = per_caller
        self._what = what
        self._callers: Counter[str] = Counter()

    @contextmanager
    def admit(self, caller: str) -> Generator[None]:
        """Counts one stream of a caller until the end of the block.

        Raises:
            ApiError: RESOURCE_EXHAUSTED if a limit is reached.
        """
        if self.count >= self.total:
            raise resource_exhausted(f"too many {self._what} are open")
        if self._per_caller and self._callers[caller] >= self._per_caller:
            raise resource_exhausted(f"too many {self._what} of this caller are open")
        self.count += 1
        self._callers[caller] += 1
        try:
            yield
        finally:
            self.count -= 1
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]


class StreamLimitInterceptor(grpc.aio.ServerInterceptor):
    """Limits the streams of health and reflection, whose servicers know no limits."""

    def __init__(self, limit: CallerLimit, prefixes: tuple[str, ...]) -> None:
        """Sets the limit.

        Args:
            limit: Counts the streams.
            prefixes: The beginnings of the full names of the methods, as in `/grpc.health.`.
        """
        self._limit = limit
        self._prefixes = prefixes

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Returns the handler of a method; one that counts streams if the method is limited."""
        handler = await continuation(handler_call_details)
        if (
            handler is None
            or not handler.response_streaming
            or not handler_call_details.method.startswith(self._prefixes)
        ):
            return handler
        inner: Any = handler.stream_stream or handler.unary_stream

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                with self._limit.admit(caller_of_call(context)):
                    async with aclosing(inner(request, context)) as responses:
                        async for response in responses:
                            yield response
            except ApiError as error:
                await context.abort(error.code, error.text, error.trailers())

        wrap: Any = (
            grpc.stream_stream_rpc_method_handler if handler.stream_stream else grpc.unary_stream_rpc_method_handler
        )
        wrapped: Handler = wrap(call, handler.request_deserializer, handler.response_serializer)
        return wrapped


LARGE_RESPONSE = 64 * 1024
"""Bytes from which a response counts. No method that writes has a response so large, so no call is refused after it has
written."""

MAX_UNREAD = 16 * 1024**2
"""Bytes of large responses that may wait to be read, in all. In memory each takes about three times its size."""

MAX_UNREAD_PER_CALLER = MAX_UNREAD // 2
"""Bytes of large responses that may wait to be read by one caller."""


class ResponseLimit:
    """Limits the responses that wait for clients that do not read them."""

    def __init__(self, total: int = MAX_UNREAD, per_caller: int = MAX_UNREAD_PER_CALLER) -> None:
        self._total = total
        self._per_caller = per_caller
        self._bytes = 0
        self._callers: Counter[str] = Counter()

    def limited(self, handler: "Handler") -> "Handler":
        """Returns a handler that raises RESOURCE_EXHAUSTED while too many responses are unread."""
        if handler.unary_unary is None:
            return handler
        inner: Any = handler.unary_unary
        serialize: Any = handler.response_serializer or bytes

        async def call(request: Any, context: Context) -> Any:
            # Checked before the work, and again after it, because other calls may have finished meanwhile.
            self._check(context, 0)
            response = serialize(await inner(request, context))
            size = len(response)
            if size >= LARGE_RESPONSE:
                try:
                    self._check(context, size)
                except ApiError:
                    # The frames of the exception would keep the response until the next garbage collection.
                    del response, request
                    raise
                self._count(context, size)
            return response

        # Serialized here, because computing the size alone costs as much.
        return grpc.unary_unary_rpc_method_handler(call, handler.request_deserializer, None)

    def _check(self, context: Context, size: int) -> None:
        if not self._bytes:
            return
        if self._bytes + size > self._total:
            raise resource_exhausted("too many large responses are waiting to be read")
        waiting = self._callers[caller] if (caller := caller_of_call(context)) in self._callers else 0
        if waiting and waiting + size > self._per_caller:
            raise resource_exhausted("too many large responses are waiting to be read by this caller")

    def _count(self, context: Context, size: int) -> None:
        caller = caller_of_call(context)
        self._bytes += size
        self._callers[caller] += size

        def done(_: object) -> None:
            self._bytes -= size
            self._callers[caller] -= size
            if not self._callers[caller]:
                del self._callers[caller]

        add: Any = context.add_done_callback  # its type is private to grpc
        add(done)
