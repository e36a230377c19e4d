"""OpenTelemetry: traces over OTLP when an endpoint is set; otherwise nothing is sent, and logs still have trace ids."""

from collections.abc import Sequence

import grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor, filters
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

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
        resource = Resource.create({SERVICE_NAME: config.service_name or service})
        if config.otlp_endpoint:
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(_exporter(config)))
        else:
            self._provider = TracerProvider(resource=resource, sampler=ALWAYS_OFF, shutdown_on_exit=False)
        trace.set_tracer_provider(self._provider)

    def server_interceptor(self) -> grpc.aio.ServerInterceptor:
        interceptor: grpc.aio.ServerInterceptor = aio_server_interceptor(  # type: ignore[no-untyped-call]  # has no types
            tracer_provider=self._provider, filter_=filters.negate(_UNTRACED)
        )
        return interceptor

    def client_interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        interceptors: Sequence[grpc.aio.ClientInterceptor] = aio_client_interceptors(  # type: ignore[no-untyped-call]  # as above
            tracer_provider=self._provider, filter_=filters.negate(_UNTRACED)
        )
        return interceptors

    def close(self) -> None:
        """Sends what is left, for at most a few seconds."""
        self._provider.force_flush(3_000)
        self._provider.shutdown()


def _exporter(config: TelemetryConfig) -> SpanExporter:
    # Both read OTEL_EXPORTER_OTLP_* by themselves. Imported here, since most processes send nothing.
    if config.otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return HttpSpanExporter()
