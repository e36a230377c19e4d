"""OpenTelemetry: traces over OTLP when an endpoint is set; otherwise nothing is made, and no call pays for it."""

from collections.abc import Sequence

import grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor, filters
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from runtime.config import TelemetryConfig

_UNTRACED = filters.any_of(
    filters.health_check(),
    filters.service_prefix("grpc.reflection"),
    # It cannot wrap streams that last (opentelemetry-python-contrib#3066), and a span of hours says nothing.
    filters.method_name("StreamOrderStatus"),
    filters.method_name("FollowOrders"),
)


class Telemetry:
    """The traces of one process."""

    def __init__(self, config: TelemetryConfig, service: str) -> None:
        self._provider: TracerProvider | None = None
        if config.otlp_endpoint:
            resource = Resource.create({SERVICE_NAME: config.service_name or service})
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(_exporter(config)))
            trace.set_tracer_provider(self._provider)

    def server_interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        """What makes a span of each call; nothing where none is exported: it costs a third of a small call."""
        if self._provider is None:
            return ()
        interceptor: grpc.aio.ServerInterceptor = aio_server_interceptor(  # type: ignore[no-untyped-call]  # has no types
            tracer_provider=self._provider, filter_=filters.negate(_UNTRACED)
        )
        return (interceptor,)

    def client_interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        """What makes a span of each call to another service, and passes the context on; nothing, likewise."""
        if self._provider is None:
            return ()
        interceptors: Sequence[grpc.aio.ClientInterceptor] = aio_client_interceptors(  # type: ignore[no-untyped-call]  # as above
            tracer_provider=self._provider, filter_=filters.negate(_UNTRACED)
        )
        return interceptors

    def close(self) -> None:
        """Sends what is left, for at most a few seconds."""
        if self._provider is not None:
            self._provider.force_flush(3_000)
            self._provider.shutdown()


def _exporter(config: TelemetryConfig) -> SpanExporter:
    # Both read OTEL_EXPORTER_OTLP_* by themselves. Imported here, since most processes send nothing.
    if config.otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return HttpSpanExporter()
