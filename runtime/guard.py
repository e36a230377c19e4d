"""What surrounds the handler of every RPC: it admits callers, parses requests, and turns errors into google.rpc.Status.

grpc would parse requests by itself, but it reports a malformed one with the name of a Python exception. So handlers are
registered without a deserializer, and requests are parsed here.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from runtime.access.caller import CALLER
from runtime.access.gate import Admit, Gate
from runtime.access.rules import rule_of
from runtime.errors import ApiError, from_domain, internal, malformed
from runtime.limits import ResponseLimit
from runtime.logs import CALL
from runtime.refusals import DomainError

log = logging.getLogger("shop.rpc")

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

_SERVER_FAULTS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The codes of errors that are logged as warnings: the client can do nothing about them."""


class Guarded:
    """Stands in for a server while a service is registered, and registers each of its methods inside `guard`.

    Methods are wrapped once, at registration. An interceptor would wrap them again for each call.
    """

    def __init__(self, server: grpc.aio.Server, gate: Gate, responses: ResponseLimit | None = None) -> None:
        """Prepares the registration.

        Args:
            server: Where the methods are registered.
            gate: Decides who may call them.
            responses: Limits the responses that clients do not read.
        """
        self._server = server
        self._gate = gate
        self._responses = responses or ResponseLimit()

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Does nothing. Generated code registers every method twice, and only the other way passes their names."""

    def add_registered_method_handlers(self, service: str, handlers: "Mapping[str, Handler]") -> None:
        """Registers the methods of a service, which are given by name.

        Raises:
            NoRuleError: A method does not say who may call it.
        """
        guarded: dict[str, Handler] = {}
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            admit = self._gate.admission(rule_of(method))
            guarded[name] = guard(method, self._responses.limited(handler), admit)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


def guard(method: str, handler: "Handler", admit: Admit) -> "Handler":
    """Returns a handler that admits callers, parses requests, and turns exceptions into statuses.

    An ApiError or DomainError becomes the status that it describes. Any other exception becomes INTERNAL, and is logged
    with its traceback.

    Args:
        method: The full name of the method, as in `/shop.order.v1.OrderService/GetOrder`.
        handler: The handler, which gets parsed requests.
        admit: Decides who may call.
    """
    wrap = _streaming if handler.response_streaming else _unary
    return wrap(handler, method, admit)


def _unary(handler: "Handler", method: str, admit: Admit) -> "Handler":
    inner: Any = handler.unary_unary
    parse = _parser(handler)

    async def call(request: bytes, context: Context) -> Any:
        CALL.set(context)
        started = time.perf_counter()
        try:
            CALLER.set(await admit(context))
            response = await inner(parse(request), context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(error, context, method, started)
        if log.isEnabledFor(logging.DEBUG):
            _log(method, "OK", started, logging.DEBUG)
        return response

    return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)


def _streaming(handler: "Handler", method: str, admit: Admit) -> "Handler":
    inner: Any = handler.stream_stream or handler.unary_stream
    parse = _parser(handler)

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        CALL.set(context)
        started = time.perf_counter()
        try:
            CALLER.set(await admit(context))
            parsed = _parse_each(parse, request) if handler.stream_stream else parse(request)
            # Closed when the caller leaves, not when it is garbage-collected: so a stream frees what it holds.
            async with aclosing(inner(parsed, context)) as responses:
                async for response in responses:
                    yield response
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:
            await _abort(error, context, method, started)
        _log(method, "OK", started, logging.DEBUG)

    wrap: Any = grpc.stream_stream_rpc_method_handler if handler.stream_stream else grpc.unary_stream_rpc_method_handler
    wrapped: Handler = wrap(call, None, handler.response_serializer)
    return wrapped


def _parser(handler: "Handler") -> Callable[[bytes], Any]:
    deserialize: Any = handler.request_deserializer or bytes

    def parse(request: bytes) -> Any:
        try:
            return deserialize(request)
        except DecodeError:
            raise malformed("cannot decode the request: wrong message type, or text that is not UTF-8") from None

    return parse


async def _parse_each(parse: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for request in requests:
        yield parse(request)


async def _abort(error: Exception, context: Context, method: str, started: float) -> NoReturn:
    if isinstance(error, DomainError):
        error = from_domain(error)
    if isinstance(error, ApiError):
        level = logging.WARNING if error.code in _SERVER_FAULTS else logging.INFO
        _log(method, error.code.name, started, level, error=error.text)
    else:
        log.error("%s failed", method, exc_info=error)
        error = internal()
    await context.abort(error.code, error.text, error.trailers())
    raise AssertionError("abort always raises")


def _log(method: str, code: str, started: float, level: int, **more: str) -> None:
    if log.isEnabledFor(level):
        milliseconds = round((time.perf_counter() - started) * 1000, 2)
        log.log(level, "%s %s", method, code, extra={"method": method, "code": code, "ms": milliseconds, **more})
