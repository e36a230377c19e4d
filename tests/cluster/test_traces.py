"""Traces: the spans of an order in all pods of a release are those of one process beside the other."""

import asyncio
import base64
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.kube import Namespace, eventually, namespace
from tests.support.release import Release
from tests.support.traced_life import Life, check, check_unsampled, trade
from tests.support.traffic import PODS

PORT = 4317


def collector(place: Namespace, image: str) -> str:
    """Starts a collector. Returns its endpoint; its log has the spans."""
    files = {"collector.py": (PODS / "collector.py").read_text()}
    place.pod("collector", image, ["python", "/files/collector.py"], files=files, port=PORT)
    place.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "collector"},
            "spec": {"selector": {"app": "collector"}, "ports": [{"name": "otlp", "port": PORT}]},
        }
    )
    place.kubectl("wait", "--for=condition=Ready", "pod/collector", "--timeout=120s", timeout=130)
    return f"http://collector.{place.name}:{PORT}"


def spans(place: Namespace) -> list[tuple[str, Span]]:
    """What the collector has got."""
    lines = [line.split() for line in place.logs("collector").splitlines()]
    return [(service, Span.FromString(base64.b64decode(span))) for service, span in lines]


async def call(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        await trade(http)


@pytest.fixture(scope="module")
def life(image: str) -> Iterator[Life]:
    """The life of an order in a release whose edge samples nothing, with callers that decide for themselves."""
    life = Life()
    with namespace(f"shop-test-{uuid4().hex[:6]}") as place:
        values = {
            "telemetry.endpoint": collector(place, image),
            "telemetry.traces.sampleRatio": "0",
            # It would move the orders, too.
            "demo.enabled": "false",
        }
        release = Release(place, image, values=values)
        release.install("--wait", "--timeout", "300s", timeout=310)
        with place.forward(f"service/{release.component('gateway')}", 8080) as port:
            asyncio.run(call(port))

        def complete() -> bool:
            life.receiver.spans = spans(place)
            return life.complete

        eventually(complete, 60, "all spans have come")
        yield life


def test_order_has_the_same_traces_as_on_one_machine(life: Life) -> None:
    check(life)
    check_unsampled(life)
