"""Scaling up and down under load: new pods get their share of the calls, and no call fails.

The calls are those that each pod has counted itself, in its metrics.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from uuid import uuid4

import pytest

from tests.support.kube import eventually, namespace
from tests.support.release import COMPONENTS, Release
from tests.support.traffic import traffic

REPLICAS = 3

MIN_SHARE = 0.5
"""The share of the calls that each pod must get at least, as a part of an equal share."""

WINDOW = 5.0
"""Seconds of calls that are compared."""

EVEN_WITHIN = 20.0
"""Seconds after all pods are ready in which the calls of services must be spread. A pod is ready 35 seconds after its
start, but DNS responses may be 30 seconds old, and a connection lasts 10 seconds."""

CONNECTION_AGE = 36.0
"""Seconds for which a client keeps its connection to the edge, with the jitter."""

READ, PLACE, RESERVE = (
    "shop.product.v1.ProductService/GetProduct",
    "shop.order.v1.OrderService/CreateOrder",
    "shop.product.v1.StockService/BatchReserveStock",
)

COUNT = """
import re, sys, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:9464/metrics").read().decode()
lines = [line for line in text.splitlines() if line.startswith("rpc_server_call_duration_seconds_count{")]
print(sum(float(line.rpartition(" ")[2]) for line in lines if f'rpc_method="{sys.argv[1]}"' in line))
"""

COUNT_REQUESTS = """
import json, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:9901/stats?format=json&filter=^http.edge.downstream_rq_total$").read()
print(json.loads(text)["stats"][0]["value"])
"""

Counts = Mapping[str, float]
"""Calls by the name of the pod that served them."""


@pytest.fixture(scope="module")
def scaled(image: str) -> Iterator[Release]:
    """A release whose callers have no limit: all traffic comes from one pod."""
    with namespace(f"shop-test-{uuid4().hex[:6]}") as place:
        values = {"demo.enabled": "false", "gateway.rateLimit.requestsPerSecond": "0"}
        release = Release(place, image, values=values)
        release.install("--wait", "--timeout", "180s", timeout=190)
        yield release


@pytest.mark.timeout(900, func_only=True)
def test_scaling_spreads_calls_and_fails_none(scaled: Release) -> None:
    """From the edge to both services, from order to product, and from clients that keep connections to the edge."""
    with traffic(scaled, readers=24, writers=6, pause=0.3) as outcome:
        _scale(scaled, REPLICAS, "product", "gateway")
        ready = time.monotonic()
        _becomes_even("edge to product", lambda: _calls(scaled, "product", READ))
        # From the one process of order, which knew one pod of product.
        _becomes_even("order to product", lambda: _calls(scaled, "product", RESERVE))
        _scale(scaled, REPLICAS, "order")
        _becomes_even("edge to order", lambda: _calls(scaled, "order", PLACE))
        time.sleep(max(0, ready + CONNECTION_AGE - time.monotonic()))
        # The clients keep 24 connections, and chance decides where each of them leads.
        assert _are_even("clients to edge", lambda: _requests(scaled), 0.15)
        _scale(scaled, 1, *COMPONENTS)
    print(outcome.summary())
    assert outcome.failures == []
    assert outcome.wrong == []
    assert outcome.calls > 500


def _scale(shop: Release, replicas: int, *components: str) -> None:
    for component in components:
        shop.namespace.kubectl("scale", f"deployment/{shop.component(component)}", f"--replicas={replicas}")
    for component in components:
        shop.rolled_out(component)


def _becomes_even(hop: str, count: Callable[[], Counts]) -> None:
    eventually(lambda: _are_even(hop, count), EVEN_WITHIN, f"{hop}: calls are spread")


def _are_even(hop: str, count: Callable[[], Counts], min_share: float = MIN_SHARE) -> bool:
    """Counts the calls of some seconds. Returns whether each pod has its share."""
    before = count()
    time.sleep(WINDOW)
    calls = {pod: after - before.get(pod, 0) for pod, after in count().items()}
    print(f"{hop}: {sorted(calls.values())}")
    return len(calls) == REPLICAS and min(calls.values()) >= min_share * sum(calls.values()) / REPLICAS > 0


def _calls(shop: Release, component: str, method: str) -> Counts:
    """The calls of a method that each pod of a service has served."""
    names = [str(pod["metadata"]["name"]) for pod in shop.pods(component)]
    return {name: float(shop.namespace.execute(name, "python", "-c", COUNT, method)) for name in names}


def _requests(shop: Release) -> Counts:
    """The requests that each Envoy has got."""
    names = [str(pod["metadata"]["name"]) for pod in shop.pods("gateway")]
    counted = {name: shop.namespace.execute(name, "python", "-c", COUNT_REQUESTS, container="sse") for name in names}
    return {name: float(json.loads(count)) for name, count in counted.items()}
