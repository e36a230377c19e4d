"""OpenTelemetry: traces over OTLP if an endpoint is set. Otherwise no call has any cost for it."""

from collections.abc import Sequence
from typing import cast

import grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import (
    aio_client_interceptors,  # pyright: ignore[reportUnknownVariableType]  # likewise
    aio_server_interceptor,  # pyright: ignore[reportUnknownVariableType]  # likewise
    filters,
)
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from runtime.config import TelemetryConfig


class Telemetry:
    """The traces of one process."""

    def __init__(self, config: TelemetryConfig, service: str, *, untraced_methods: Sequence[str] = ()) -> None:
        """Starts to export traces, if the configuration has an endpoint.

        Args:
            config: Where traces go.
            service: The name of the process in traces, if the configuration has none.
            untraced_methods: Names of RPCs without spans. Streams that last have to be among them: the instrumentation
                cannot wrap them (opentelemetry-python-contrib#3066), and a span of hours tells nothing.
        """
        methods = [filters.method_name(name) for name in untraced_methods]
        self._traced = filters.negate(
            filters.any_of(filters.health_check(), filters.service_prefix("grpc.reflection"), *methods)
        )
        self._provider: TracerProvider | None = None
        if config.otlp_endpoint:
            resource = Resource.create({SERVICE_NAME: config.service_name or service})
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(_exporter(config)))
            trace.set_tracer_provider(self._provider)

    def server_interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        """Returns the interceptors of incoming calls; none if no spans are exported.

        They make a span of each call and pass the context on.
        """
        if self._provider is None:
            return ()
        interceptor: grpc.aio.ServerInterceptor = aio_server_interceptor(  # type: ignore[no-untyped-call]  # has no types
            tracer_provider=self._provider, filter_=self._traced
        )
        return (interceptor,)

    def client_interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        """Returns the interceptors of calls to other services; none if no spans are exported.

        They make a span of each call and pass the context on.
        """
        if self._provider is None:
            return ()
        interceptors = aio_client_interceptors(tracer_provider=self._provider, filter_=self._traced)  # type: ignore[no-untyped-call]  # as above
        return cast("Sequence[grpc.aio.ClientInterceptor]", interceptors)

    def close(self) -> None:
        """Sends the remaining spans, for at most a few seconds."""
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
