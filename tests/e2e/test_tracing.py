"""One trace from the edge through order, product and SQL, received over OTLP in this very process."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.rest import Rest
from tests.support.shop import run_shop


@dataclass
class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets: (service name, span)."""

    spans: list[tuple[str, Span]] = field(default_factory=list)

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


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # has no types
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield receiver, f"http://127.0.0.1:{port}"
    await server.stop(1)


async def test_order_is_one_trace_from_edge_to_sql(receiver: tuple[Receiver, str], tmp_path: Path) -> None:
    spans, endpoint = receiver
    trace = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200", "LOG_FORMAT": "json"}
    with run_shop(tmp_path, variables) as shop:
        async with httpx.AsyncClient(base_url=shop.url) as http:
            product = await Rest(http).product()
            headers = {"traceparent": f"00-{trace.hex()}-b7ad6b7169203331-01"}
            answer = await http.post("/api/v1/orders", json=Rest.order_body(product["id"]), headers=headers)
            assert answer.status_code == 200, answer.text
            order_id = answer.json()["id"]
            await http.post(f"/api/v1/orders/{order_id}:cancel")
            for path in (
                "/api/v1/orders?customerEmail=ada%40example.com",
                "/api/v1/orders?customerEmail=ada@example.com&status=PLACED",
                "/api/v1/products?search=secret-word",
                f"/api/orders/stream?order_id={order_id}&token=secret-token",
            ):
                assert (await http.get(path, headers=headers)).status_code == 200, path

        async with asyncio.timeout(20):
            while not (
                (reserve := spans.find("product", "stock.reserve", trace))
                and (insert := spans.find("order", "order.insert", trace))
                # edge → order (server) → SQL, and edge → order (server) → order (client) → product (server) → SQL
                and compact(spans.chain(insert)) == ["shop-edge", "order"]
                and compact(spans.chain(reserve)) == ["shop-edge", "order", "product"]
                and spans.find("order", "order.list", trace)
                and spans.find("product", "product.search", trace)
            ):
                await asyncio.sleep(0.1)
        assert reserve.parent_span_id != insert.parent_span_id
        # Nothing of whoever ordered, nor of what anybody looked for, in anything that anybody sent or logged.
        kept = "\n".join(f"{owner} {span}" for owner, span in spans.spans)
        kept += "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
        for private in ("ada@", "ada%40", "Lovelace", "James", "+44", "secret-"):
            assert private not in kept, private

        logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("order*.log")))
        lines = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
        placed = [line for line in lines if line.get("trace_id") == trace.hex()]
        assert placed, "the order's log lines have its trace"


def compact(chain: list[str]) -> list[str]:
    """Neighbours of one service counted once."""
    return [each for index, each in enumerate(chain) if index == 0 or chain[index - 1] != each]
