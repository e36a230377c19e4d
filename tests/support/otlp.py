"""An OTLP collector in the process of the test, for spans and metrics."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Attributes = Mapping[str, str]
"""Values of attributes, as text."""


@dataclass
class Receiver:
    """Keeps what it gets, with the names of the services that sent it."""

    spans: list[tuple[str, Span]] = field(default_factory=list)
    metrics: list[tuple[str, Metric]] = field(default_factory=list)
    """In the sequence in which they came. Each service sends all of its metrics again and again."""
    endpoint: str = ""
    """Where it listens, as in OTEL_EXPORTER_OTLP_ENDPOINT."""

    def variables(self) -> dict[str, str]:
        """The environment variables of processes that send their spans and metrics here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }

    def text(self) -> str:
        """Everything that the spans say."""
        return "\n".join(f"{owner} {span}" for owner, span in self.spans)

    def metrics_text(self) -> str:
        """Everything that the metrics say."""
        return "\n".join(f"{owner} {metric}" for owner, metric in self.metrics)

    def find(self, service: str, name: str, trace: bytes) -> Span | None:
        matches = [
            each for owner, each in self.spans if (owner, each.trace_id) == (service, trace) and name in each.name
        ]
        return matches[0] if matches else None

    def tree(self, trace: bytes) -> list[str]:
        """The spans of a trace, each as the services and names from the trace's root to it, sorted."""
        spans = {each.span_id: (owner, each) for owner, each in self.spans if each.trace_id == trace}

        def path(span_id: bytes) -> str:
            owner, span = spans[span_id]
            above = f"{path(span.parent_span_id)} > " if span.parent_span_id in spans else ""
            return f"{above}{owner} {span.name.rpartition('.')[2] if '/' in span.name else span.name}"

        return sorted(map(path, spans))

    def chain(self, span: Span) -> list[str]:
        """The services from the root of the trace to a span."""
        owners = {each.span_id: (owner, each) for owner, each in self.spans}
        found: list[str] = []
        at: bytes = span.span_id
        while at in owners:
            owner, each = owners[at]
            found.insert(0, owner)
            at = each.parent_span_id
        return found

    def metric(self, service: str, name: str) -> Metric | None:
        """The metric that a service has sent last, by its name in OpenTelemetry, as in `shop.orders.transitions`."""
        return next((each for owner, each in reversed(self.metrics) if (owner, each.name) == (service, name)), None)

    def values(self, service: str, name: str, attributes: Attributes | None = None) -> list[float]:
        """The last values of a counter or gauge that have these attributes; of a histogram, its counts."""
        metric = self.metric(service, name)
        if metric is None:
            return []
        wanted = (attributes or {}).items()
        return [_number(each) for each in _points(metric) if wanted <= attributes_of(each.attributes).items()]

    def value(self, service: str, name: str, attributes: Attributes | None = None) -> float:
        """The sum of those values; 0 if there are none."""
        return sum(self.values(service, name, attributes))


Point = NumberDataPoint | HistogramDataPoint


def _points(metric: Metric) -> list[Point]:
    return [*metric.sum.data_points, *metric.gauge.data_points, *metric.histogram.data_points]


def _number(point: Point) -> float:
    if isinstance(point, HistogramDataPoint):
        return point.count
    return point.as_int if point.HasField("as_int") else point.as_double


def attributes_of(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Returns attributes as text, by their keys."""
    found: dict[str, str] = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = str(getattr(each.value, kind)) if kind else ""
    return found


class _Spans(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext[
            trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2.ExportTraceServiceResponse
        ],
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for group in request.resource_spans:
            owner = _service(group.resource)
            self._receiver.spans += [(owner, span) for scope in group.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(
        self,
        request: metrics_service_pb2.ExportMetricsServiceRequest,
        context: grpc.aio.ServicerContext[
            metrics_service_pb2.ExportMetricsServiceRequest, metrics_service_pb2.ExportMetricsServiceResponse
        ],
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        for group in request.resource_metrics:
            owner = _service(group.resource)
            self._receiver.metrics += [(owner, metric) for scope in group.scope_metrics for metric in scope.metrics]
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _service(resource: Resource) -> str:
    return attributes_of(resource.attributes)["service.name"]


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[Receiver]:
    """Runs a collector on a free port until the end of the block."""
    receiver = Receiver()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Spans(receiver), server)  # type: ignore[no-untyped-call]  # has no types
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(receiver), server)  # type: ignore[no-untyped-call]  # likewise
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(1)
