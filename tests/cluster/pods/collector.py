"""An OTLP collector. It prints the name of a service and a span of it (base64), a line each."""

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for group in request.resource_spans:
            [name] = [each.value.string_value for each in group.resource.attributes if each.key == "service.name"]
            for scope in group.scope_spans:
                for span in scope.spans:
                    print(f"{name} {base64.b64encode(span.SerializeToString()).decode()}", flush=True)
        return trace_service_pb2.ExportTraceServiceResponse()


# One thread, so that no two lines mix.
server = grpc.server(ThreadPoolExecutor(1))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]  # has no types
server.add_insecure_port("[::]:4317")
server.start()
server.wait_for_termination()
