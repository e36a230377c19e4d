"""Traces over OTLP if an endpoint is set. Otherwise no call has any cost for them."""

from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.grpc import (
    aio_server_interceptor,  # pyright: ignore[reportUnknownVariableType]  # has no types
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased

from runtime.headers import metadata
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.export import CLOSE_TIMEOUT, SpanSender, run_for
from runtime.telemetry.sampling import LinkBased
from runtime.telemetry.trace_context import TRACEPARENT, TRACESTATE, Header, context_of, is_unsampled

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]


class CallDetails(grpc.HandlerCallDetails):
    """What an interceptor is told of the calls of a method. Their headers differ, so it has none."""

    def __init__(self, method: str) -> None:
        """`method` is its full name, as in `/shop.order.v1.OrderService/GetOrder`."""
        self.method = method
        self.invocation_metadata = ()


class Traces:
    """The traces of one process."""

    def __init__(self, config: TelemetryConfig, resource: Resource) -> None:
        """Starts to export traces, if the configuration has an endpoint.

        Args:
            config: Where traces go.
            resource: What describes the process.
        """
        self._provider: TracerProvider | None = None
        self._parent_decides = False
        """Whether no trace is sampled that its caller has not sampled."""
        if config.traces_endpoint:
            # Reads OTEL_TRACES_SAMPLER by itself.
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            if isinstance(self._provider.sampler, ParentBased):
                self._parent_decides = True
                self._provider.sampler = LinkBased(self._provider.sampler)
            self._sender = SpanSender(_exporter(config))
            self._provider.add_span_processor(BatchSpanProcessor(self._sender))
            trace.set_tracer_provider(self._provider)

    @property
    def enabled(self) -> bool:
        """Whether spans are exported."""
        return self._provider is not None

    def continued(self, header: Header) -> Context | None:
        """Returns the context for the span of a call, by the headers of its caller; None if it gets no span."""
        traceparents = header(TRACEPARENT)
        if self._provider is None or (self._parent_decides and is_unsampled(traceparents)):
            return None
        return context_of(traceparents, header(TRACESTATE))

    def served(self, method: str, handler: "Handler") -> "Handler":
        """Returns a handler whose calls have spans, if spans are exported.

        The spans are those of opentelemetry-instrumentation-grpc. Its interceptor is asked once for each method and not
        for each call, and is bypassed by calls that are not sampled: otherwise they cost a third more. Streams have no
        spans, because a span of hours tells nothing; neither have health checks and reflection.

        Args:
            method: The full name of the method, as in `/shop.order.v1.OrderService/GetOrder`.
            handler: The handler, which ends calls that fail by `abort`.
        """
        if self._provider is None or handler.response_streaming or method.startswith("/grpc."):
            return handler
        interceptor: Any = aio_server_interceptor(tracer_provider=self._provider)  # type: ignore[no-untyped-call]  # has no types
        details = CallDetails(method)
        parent_decides = self._parent_decides
        unsampled: Any = handler.unary_unary
        sampled: Any = None

        async def continuation(_: grpc.HandlerCallDetails) -> "Handler":
            return handler

        async def call(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            nonlocal sampled
            if parent_decides and is_unsampled([value for key, value in metadata(context) if key == TRACEPARENT]):
                return await unsampled(request, context)
            if sampled is None:
                sampled = (await interceptor.intercept_service(continuation, details)).unary_unary
            return await sampled(request, context)

        return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)

    def close(self) -> None:
        """Sends the remaining spans, for at most CLOSE_TIMEOUT seconds."""
        if self._provider is not None and not run_for(CLOSE_TIMEOUT, self._provider.shutdown):
            self._sender.shutdown()


def _exporter(config: TelemetryConfig) -> SpanExporter:
    # Both read OTEL_EXPORTER_OTLP_* by themselves. Imported here, since most processes send nothing.
    if config.traces_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return HttpSpanExporter()
