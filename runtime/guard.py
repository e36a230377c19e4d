"""Around every call: errors become google.rpc.Status, nothing else leaves the process, and a refusal is logged."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from runtime.errors import ApiError, from_domain, internal, malformed
from runtime.limits import AnswerLimit
from runtime.logs import CALL
from runtime.refusals import DomainError

log = logging.getLogger("shop.rpc")

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

_OURS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Guarded:
    """Takes a service's methods as a server does, and hands them on to one, each guarded.

    Wrapped once, when they are registered: an interceptor would be asked anew for each call.
    """

    def __init__(self, server: grpc.aio.Server, answers: AnswerLimit | None = None) -> None:
        """`answers` limits what waits for those who do not read."""
        self._server = server
        self._answers = answers or AnswerLimit()

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Generated code registers every method twice; the other way has their names."""

    def add_registered_method_handlers(self, service: str, handlers: "Mapping[str, Handler]") -> None:
        limited = self._answers.limited
        guarded = {name: guard(f"/{service}/{name}", limited(handler)) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


def guard(method: str, handler: "Handler") -> "Handler":
    """Lets ApiError through as it is, and turns any other exception into INTERNAL with a log entry.

    Messages are parsed here: where grpc does it, one that is malformed is answered with the exception's name.
    """
    return _streaming(handler, method) if handler.response_streaming else _unary(handler, method)


def _unary(handler: "Handler", method: str) -> "Handler":
    inner: Any = handler.unary_unary
    parse = _parser(handler)

    async def call(request: bytes, context: Context) -> Any:
        CALL.set(context)
        started = time.perf_counter()
        try:
            response = await inner(parse(request), context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(error, context, method, started)
        if log.isEnabledFor(logging.DEBUG):
            _said(method, "OK", started, logging.DEBUG)
        return response

    return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)


def _streaming(handler: "Handler", method: str) -> "Handler":
    inner: Any = handler.stream_stream or handler.unary_stream
    parse = _parser(handler)

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        CALL.set(context)
        started = time.perf_counter()
        try:
            # Closed here, so that what a stream holds is given back when its caller leaves, not when it is collected.
            message = _each(parse, request) if handler.stream_stream else parse(request)
            async with aclosing(inner(message, context)) as responses:
                async for response in responses:
                    yield response
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:
            await _abort(error, context, method, started)
        _said(method, "OK", started, logging.DEBUG)

    wrap: Any = grpc.stream_stream_rpc_method_handler if handler.stream_stream else grpc.unary_stream_rpc_method_handler
    wrapped: Handler = wrap(call, None, handler.response_serializer)
    return wrapped


def _parser(handler: "Handler") -> Callable[[bytes], Any]:
    deserialize: Any = handler.request_deserializer or bytes

    def parse(request: bytes) -> Any:
        try:
            return deserialize(request)
        except DecodeError:
            raise malformed("the request is no message of this method, or a text in it is not UTF-8") from None

    return parse


async def _each(parse: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for request in requests:
        yield parse(request)


async def _abort(error: Exception, context: Context, method: str, started: float) -> NoReturn:
    if isinstance(error, DomainError):
        error = from_domain(error)
    if isinstance(error, ApiError):
        level = logging.WARNING if error.code in _OURS else logging.INFO
        _said(method, error.code.name, started, level, error=error.text)
    else:
        log.error("%s failed", method, exc_info=error)
        error = internal()
    await context.abort(error.code, error.text, error.trailers())
    raise AssertionError("abort raises")


def _said(method: str, code: str, started: float, level: int, **more: str) -> None:
    if log.isEnabledFor(level):
        milliseconds = round((time.perf_counter() - started) * 1000, 2)
        log.log(level, "%s %s", method, code, extra={"method": method, "code": code, "ms": milliseconds, **more})
