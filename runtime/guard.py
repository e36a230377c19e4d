"""What surrounds the handler of every RPC: it admits callers, parses requests, and turns errors into google.rpc.Status.

grpc would parse requests by itself, but it reports a malformed one with the name of a Python exception. So handlers are
registered without a deserializer, and requests are parsed here.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from opentelemetry import trace

from runtime.access.caller import CALLER, Caller
from runtime.access.gate import Admit, Gate
from runtime.access.rules import rule_of
from runtime.errors import ApiError, from_domain, internal, malformed
from runtime.limits import ResponseLimit
from runtime.logs import CALL
from runtime.refusals import DomainError
from runtime.telemetry.calls import Calls, MethodCalls, cancellation_code
from runtime.telemetry.spans import fail
from runtime.telemetry.traces import Traces

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]


class Guarded:
    """Stands in for a server while a service is registered, and registers each of its methods inside `guard`.

    Methods are wrapped once, at registration. An interceptor would wrap them again for each call.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        gate: Gate,
        responses: ResponseLimit | None = None,
        calls: Calls | None = None,
        traces: Traces | None = None,
    ) -> None:
        """Prepares the registration.

        Args:
            server: Where the methods are registered.
            gate: Decides who may call them.
            responses: Limits the responses that clients do not read.
            calls: Measures and logs their calls.
            traces: Makes spans of their calls.
        """
        self._server = server
        self._gate = gate
        self._responses = responses or ResponseLimit()
        self._calls = calls or Calls()
        self._traces = traces

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
            rule = rule_of(method)
            admit, describe = self._gate.admission(rule), self._gate.description(rule)
            calls = self._calls.of(method, streaming=bool(handler.response_streaming), describe=describe)
            wrapped = guard(self._responses.limited(handler), admit, calls)
            guarded[name] = self._traces.served(method, wrapped) if self._traces else wrapped
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


def guard(handler: "Handler", admit: Admit, calls: MethodCalls) -> "Handler":
    """Returns a handler that admits callers, parses requests, and turns exceptions into statuses.

    An ApiError or DomainError becomes the status that it describes. Any other exception becomes INTERNAL, and is logged
    with its traceback.

    Args:
        handler: The handler, which gets parsed requests.
        admit: Decides who may call.
        calls: Measures and logs the calls.
    """
    wrap = _streaming if handler.response_streaming else _unary
    return wrap(handler, admit, calls)


def _unary(handler: "Handler", admit: Admit, calls: MethodCalls) -> "Handler":
    inner: Any = handler.unary_unary
    parse = _parser(handler)

    async def call(request: bytes, context: Context) -> Any:
        CALL.set(context)
        start = calls.started()
        caller = None
        try:
            caller = await admit(context)
            CALLER.set(caller)
            response = await inner(parse(request), context)
        except Exception as error:
            await _abort(error, context, calls, start, caller)
        except BaseException:
            code = cancellation_code(context)
            calls.finished(code, start, caller)
            fail(trace.get_current_span(), code)
            raise
        calls.finished("OK", start, caller)
        return response

    return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)


def _streaming(handler: "Handler", admit: Admit, calls: MethodCalls) -> "Handler":
    inner: Any = handler.stream_stream or handler.unary_stream
    parse = _parser(handler)

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        CALL.set(context)
        start = calls.started()
        caller = None
        try:
            caller = await admit(context)
            CALLER.set(caller)
            parsed = _parse_each(parse, request) if handler.stream_stream else parse(request)
            # Closed when the caller leaves, not when it is garbage-collected: so a stream frees what it holds.
            async with aclosing(inner(parsed, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            await _abort(error, context, calls, start, caller)
        except BaseException:
            calls.finished("CANCELLED", start, caller)
            raise
        calls.finished("OK", start, caller)

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


async def _abort(
    error: Exception, context: Context, calls: MethodCalls, start: float, caller: Caller | None
) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        calls.finished(context.code().name, start, caller)
        raise error
    if isinstance(error, DomainError):
        error = from_domain(error)
    if isinstance(error, ApiError):
        calls.finished(error.code.name, start, caller, error.text)
    else:
        calls.failed(error, start, caller)
        error = internal()
    await context.abort(error.code, error.text, error.trailers())
    raise AssertionError("abort always raises")
