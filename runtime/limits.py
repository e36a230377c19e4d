"""How much of a process one caller may take."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc

from runtime.errors import ApiError, resource_exhausted

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

EXTERNAL_ADDRESS = "x-envoy-external-address"
"""The header in which the edge says who calls. It takes off what clients send in it."""

PREFIX = 64
"""Bits of an IPv6 address that tell one caller from another: the rest is the caller's own to choose."""


def caller_of(address: str) -> str:
    """Whom an address counts as: itself, or its /64 if it is IPv6."""
    try:
        parsed = ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> (128 - PREFIX) << (128 - PREFIX)))


def caller_of_call(context: Context) -> str:
    """Who makes a call: whom the edge names, or the peer."""
    for key, value in context.invocation_metadata() or ():
        if key == EXTERNAL_ADDRESS:
            return caller_of(str(value))
    scheme, _, address = unquote(context.peer()).partition(":")
    return caller_of(address.rpartition(":")[0]) if scheme in ("ipv4", "ipv6") else ""


class CallerLimit:
    """So many at once, in all and of one caller."""

    def __init__(self, total: int, per_caller: int, what: str = "streams") -> None:
        """`per_caller` 0: as many as in all."""
        self._total = total
        self._per_caller = per_caller
        self._what = what
        self._count = 0
        self._callers: Counter[str] = Counter()

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Counts one of a caller until the end of the block. Raises RESOURCE_EXHAUSTED beyond a limit."""
        if self._count >= self._total:
            raise resource_exhausted(f"too many {self._what} are open")
        if self._per_caller and self._callers[caller] >= self._per_caller:
            raise resource_exhausted(f"too many {self._what} are open from this address")
        self._count += 1
        self._callers[caller] += 1
        try:
            yield
        finally:
            self._count -= 1
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]


class StreamLimitInterceptor(grpc.aio.ServerInterceptor):
    """Limits the streams of methods whose servicers are not ours: health and reflection."""

    def __init__(self, limit: CallerLimit, prefixes: tuple[str, ...]) -> None:
        """`prefixes` are what the full names of the methods begin with, as in `/grpc.health.`."""
        self._limit = limit
        self._prefixes = prefixes

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
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


LARGE = 64 * 1024
"""Bytes of an answer below which it is not counted: no answer of a method that writes is larger, so none is refused
after it has written."""

ANSWERS = 16 * 1024**2
"""Bytes of large answers that may wait for those who asked, in all; each is some three times in memory."""

ANSWERS_PER_CALLER = ANSWERS // 2
"""Those of one caller."""


class AnswerLimit:
    """Bounds what waits for clients that ask and do not read."""

    def __init__(self, total: int = ANSWERS, per_caller: int = ANSWERS_PER_CALLER) -> None:
        self._total = total
        self._per_caller = per_caller
        self._bytes = 0
        self._callers: Counter[str] = Counter()

    def limited(self, handler: "Handler") -> "Handler":
        """The handler of a method, which raises RESOURCE_EXHAUSTED while too much waits."""
        if handler.unary_unary is None:
            return handler
        inner: Any = handler.unary_unary
        serialize: Any = handler.response_serializer or bytes

        async def call(request: Any, context: Context) -> Any:
            # Before the work where that can be told, and after it for those that were at work meanwhile.
            self._check(context, 0)
            response = serialize(await inner(request, context))
            size = len(response)
            if size >= LARGE:
                try:
                    self._check(context, size)
                except ApiError:
                    # The exception's frames would keep it until Python next looks for garbage.
                    del response, request
                    raise
                self._count(context, size)
            return response

        # Serialized here, where the size is asked for: to reckon it is to serialize once more.
        return grpc.unary_unary_rpc_method_handler(call, handler.request_deserializer, None)

    def _check(self, context: Context, size: int) -> None:
        if not self._bytes:
            return
        if self._bytes + size > self._total:
            raise resource_exhausted("too many large answers wait to be read")
        waiting = self._callers[caller] if (caller := caller_of_call(context)) in self._callers else 0
        if waiting and waiting + size > self._per_caller:
            raise resource_exhausted("too many large answers wait to be read by this address")

    def _count(self, context: Context, size: int) -> None:
        caller = caller_of_call(context)
        self._bytes += size
        self._callers[caller] += size

        def done(_: object) -> None:
            self._bytes -= size
            self._callers[caller] -= size
            if not self._callers[caller]:
                del self._callers[caller]

        add: Any = context.add_done_callback  # its type is grpc's own
        add(done)
