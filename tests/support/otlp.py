"""An OTLP collector in the process of the test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it gets: (service name, span)."""

    spans: list[tuple[str, Span]] = field(default_factory=list)
    endpoint: str = ""
    """Where it listens, as in OTEL_EXPORTER_OTLP_ENDPOINT."""

    async def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext[
            trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2.ExportTraceServiceResponse
        ],
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for group in request.resource_spans:
            names = [each.value.string_value for each in group.resource.attributes if each.key == "service.name"]
            self.spans += [(names[0], span) for scope in group.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def variables(self) -> dict[str, str]:
        """The environment variables of processes that send their spans here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    def text(self) -> str:
        """Everything that the spans say."""
        return "\n".join(f"{owner} {span}" for owner, span in self.spans)

    def find(self, service: str, name: str, trace: bytes) -> Span | None:
        matches = [
            each for owner, each in self.spans if (owner, each.trace_id) == (service, trace) and name in each.name
        ]
        return matches[0] if matches else None

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


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[Receiver]:
    """Runs a collector on a free port until the end of the block."""
    receiver = Receiver()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # has no types
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(1)
