"""The network policies, as a network plugin enforces them."""

import json
from uuid import uuid4

import pytest

from tests.support.kube import Namespace
from tests.support.release import Release
from tests.support.traffic import PODS

REACH = (PODS / "reach.py").read_text()


def reached(
    namespace: Namespace, image: str, wanted: list[str], others: list[str], labels: dict[str, str] | None = None
) -> set[str]:
    """The addresses that a new pod with these labels can connect to: `wanted` are tried for a while, `others` once."""
    name = f"probe-{uuid4().hex[:6]}"
    namespace.pod(
        name, image, ["python", "/files/reach.py", *wanted, "--", *others], files={"reach.py": REACH}, labels=labels
    )
    answers = json.loads(namespace.ended(name, 90))
    return {address for address, answer in answers.items() if answer}


@pytest.fixture(scope="module")
def listener(shared: Namespace, image: str) -> str:
    """A stranger's server in the shop's namespace; skips where a policy that closes it closes nothing."""
    serve = ["python", "-m", "http.server", "8000"]
    shared.pod("listener", image, serve, port=8000)
    shared.pod("walled", image, serve)
    shared.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "walled"},
            "spec": {"podSelector": {"matchLabels": {"app": "walled"}}, "policyTypes": ["Ingress"]},
        }
    )
    shared.kubectl("wait", "--for=condition=Ready", "pod/listener", "pod/walled", "--timeout=60s")
    free, walled = (f"{shared.one('pod', name)['status']['podIP']}:8000" for name in ("listener", "walled"))
    found = reached(shared, image, [free], [walled])
    assert free in found
    if walled in found:
        pytest.skip("the cluster's network plugin enforces no network policies")
    return free


def inside(shop: Release) -> dict[str, str]:
    """Every address of the shop that is not for strangers, by name."""
    gateway = shop.namespace.one("pod", shop.pod("gateway"))["status"]["podIP"]
    return {
        "product-db": f"{shop.component('product-db')}:5432",
        "order-db": f"{shop.component('order-db')}:5432",
        "product": f"{shop.component('product')}:50052",
        "order": f"{shop.component('order')}:50053",
        "admin": f"{gateway}:9901",
        "sse": f"{gateway}:8081",
        "sse-grpc": f"{gateway}:50054",
        "product-metrics": f"{shop.component('product')}:9464",
        "order-metrics": f"{shop.component('order')}:9464",
        "sse-metrics": f"{gateway}:9464",
        "envoy-metrics": f"{gateway}:9465",
    }


def test_other_pods_reach_the_edge_only(shop: Release, listener: str) -> None:
    """No database, no StockService (on product's port), no metrics, no Envoy admin."""
    edge = f"{shop.component('gateway')}:8080"
    others = list(inside(shop).values())
    assert reached(shop.namespace, shop.image, [edge, listener], others) == {edge, listener}


@pytest.mark.parametrize(
    ("component", "open_to_it"),
    [
        ("product-migrate", {"product-db"}),
        ("order-migrate", {"order-db"}),
        ("demo", {"product", "order"}),
        ("demo-load", {"product"}),
    ],
)
def test_component_reaches_only_what_it_needs(
    shop: Release, listener: str, component: str, open_to_it: set[str]
) -> None:
    """Also that a stranger's probe would have found a way, had there been one."""
    names = {address: name for name, address in inside(shop).items()}
    wanted = [address for address, name in names.items() if name in open_to_it]
    others = [listener, *(address for address in names if address not in wanted)]
    labels = dict(part.split("=") for part in shop.selector(component).split(","))
    labels["app.kubernetes.io/name"] = "shopping-cart"
    found = reached(shop.namespace, shop.image, wanted, others, labels)
    assert {names.get(address, address) for address in found} == open_to_it


@pytest.mark.parametrize(("service", "open_to_it"), [("product", {"product-db"}), ("order", {"order-db", "product"})])
def test_service_reaches_its_own_database_only(
    shop: Release, listener: str, service: str, open_to_it: set[str]
) -> None:
    names = {address: name for name, address in inside(shop).items() if name not in (service, f"{service}-metrics")}
    wanted = [address for address, name in names.items() if name in open_to_it]
    others = [listener, *(address for address in names if address not in wanted)]
    said = shop.namespace.execute(shop.pod(service), "python", "-", *wanted, "--", *others, stdin=REACH)
    found = {address for address, answer in json.loads(said).items() if answer}
    assert {names.get(address, address) for address in found} == open_to_it


def test_database_reaches_nothing(shop: Release, listener: str) -> None:
    """It has neither Python nor curl, but bash."""
    host, _, port = listener.rpartition(":")
    connect = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{host}/{port}' 2>/dev/null && echo reached || echo closed"
    assert shop.namespace.execute(shop.pod("product-db"), "bash", "-c", connect) == "closed\n"
