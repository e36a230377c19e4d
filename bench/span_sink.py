"""A collector that takes what it gets and keeps nothing, for benchmarks with traces."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from local.settings import LOOPBACK


@dataclass
class Sink:
    """What came in."""

    endpoint: str = ""
    """Its address, as in OTEL_EXPORTER_OTLP_ENDPOINT."""
    bytes: int = 0


@contextmanager
def span_sink() -> Iterator[Sink]:
    """Runs a collector on a free port until the end of the block."""
    sink = Sink()

    class Everything(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            return grpc.unary_unary_rpc_method_handler(self._take)

        @staticmethod
        def _take(request: bytes, _: grpc.ServicerContext) -> bytes:
            sink.bytes += len(request)
            return b""

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Everything()])
    sink.endpoint = f"http://{LOOPBACK}:{server.add_insecure_port(f'{LOOPBACK}:0')}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(1).wait()
