"""Around every call: errors become google.rpc.Status, nothing else leaves the process, and a refusal is logged."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from runtime.errors import ApiError, internal, malformed

log = logging.getLogger("shop.rpc")

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

_QUIET = "/grpc.health."
_OURS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Lets ApiError through as it is, and turns any other exception into INTERNAL with a log entry.

    Messages are parsed here: where grpc does it, one that is malformed is answered with the exception's name.
    """

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        # An unknown method has no handler: grpc answers UNIMPLEMENTED. Health is grpc's own.
        if handler is None or method.startswith(_QUIET):
            return handler
        if handler.response_streaming:
            return _streaming(handler, method)
        return _unary(handler, method)


def _unary(handler: "Handler", method: str) -> "Handler":
    inner: Any = handler.unary_unary

    async def call(request: bytes, context: Context) -> Any:
        started = time.perf_counter()
        try:
            response = await inner(_parsed(handler, request), context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(error, context, method, started)
        _said(method, "OK", started, logging.DEBUG)
        return response

    return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)


def _streaming(handler: "Handler", method: str) -> "Handler":
    inner: Any = handler.stream_stream or handler.unary_stream

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        started = time.perf_counter()
        try:
            # Closed here, so that what a stream holds is given back when its caller leaves, not when it is collected.
            message = _each_parsed(handler, request) if handler.stream_stream else _parsed(handler, request)
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


def _parsed(handler: "Handler", request: bytes) -> Any:
    parse: Any = handler.request_deserializer
    try:
        return parse(request) if parse else request
    except DecodeError:
        raise malformed("the request is no message of this method, or a text in it is not UTF-8") from None


async def _each_parsed(handler: "Handler", requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _parsed(handler, request)


async def _abort(error: Exception, context: Context, method: str, started: float) -> NoReturn:
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
