"""Metrics: who may scrape them, and what comes and goes with a release if all of `telemetry.metrics` is on."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.chart import tools
from tests.cluster.test_policies import reached
from tests.support.kube import Namespace, Object, kubectl, namespace
from tests.support.release import COMPONENTS, Release
from tests.support.traffic import PODS

SCRAPER = {"scrapes": "metrics"}
"""The labels of the pods that may scrape."""

VALUES = {
    "telemetry.metrics.from[0].podSelector.matchLabels.scrapes": "metrics",
    "telemetry.metrics.scrapeAnnotations.enabled": "true",
    "telemetry.metrics.podMonitor.enabled": "true",
    "telemetry.metrics.rules.enabled": "true",
    "telemetry.metrics.dashboards.enabled": "true",
}


@pytest.fixture(scope="module")
def definitions() -> Iterator[None]:
    """The Prometheus Operator's kinds. Nothing here needs the operator itself."""
    known = kubectl("api-resources", "--api-group=monitoring.coreos.com", "--no-headers")
    made = [file for file in tools.require(tools.crds) if file.stem not in known]
    for file in made:
        kubectl("apply", "--server-side", "--filename", str(file))
        kubectl("wait", "--for=condition=Established", "--filename", str(file), "--timeout=60s")
    yield
    for file in made:
        kubectl("delete", "--ignore-not-found", "--filename", str(file))


@pytest.fixture(scope="module")
def place(definitions: None) -> Iterator[Namespace]:
    with namespace(f"shop-test-{uuid4().hex[:6]}") as made:
        yield made


@pytest.fixture(scope="module")
def monitored(place: Namespace, image: str) -> Release:
    """A release with all of `telemetry.metrics` on, for pods with the labels of SCRAPER."""
    release = Release(place, image, values=VALUES)
    release.install("--wait", "--timeout", "300s", timeout=310)
    return release


def addresses(shop: Release) -> dict[str, str]:
    """The ports for metrics by container, found as a Prometheus does: at a pod's address, by their names."""
    found = {}
    for component in COMPONENTS:
        pod = shop.namespace.one("pod", shop.pod(component))
        for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
            for port in container["ports"]:
                if port["name"].startswith("metrics"):
                    found[container["name"]] = f"{pod['status']['podIP']}:{port['containerPort']}"
    return found


def scraped(shop: Release, *urls: str) -> dict[str, list[str] | int]:
    """The names of the metrics at each URL, for a pod that may scrape; or the status, if it is not 200."""
    name = f"scraper-{uuid4().hex[:6]}"
    files = {"scrape.py": (PODS / "scrape.py").read_text()}
    shop.namespace.pod(name, shop.image, ["python", "/files/scrape.py", *urls], files=files, labels=SCRAPER)
    printed: dict[str, list[str] | int] = json.loads(shop.namespace.ended(name, 120))
    return printed


def test_named_peer_scrapes_every_port(monitored: Release) -> None:
    ports = addresses(monitored)
    assert ports.keys() == {"product", "order", "sse", "envoy"}
    paths = {each["port"]: each["path"] for each in monitor(monitored)["spec"]["podMetricsEndpoints"]}
    urls = {each: f"http://{port}{paths['metrics']}" for each, port in ports.items() if each != "envoy"}
    urls["envoy"] = f"http://{ports['envoy']}{paths['metrics-envoy']}"
    found = scraped(monitored, *urls.values())
    for container, url in urls.items():
        names = found[url]
        assert isinstance(names, list), (container, names)
        assert ("envoy_server_uptime" if container == "envoy" else "process_uptime_seconds") in names, container


def test_envoy_shows_nothing_but_its_statistics(monitored: Release) -> None:
    port = addresses(monitored)["envoy"]
    urls = [f"http://{port}{path}" for path in ("/", "/config_dump", "/clusters", "/certs", "/stats")]
    assert scraped(monitored, *urls) == dict.fromkeys(urls, 404)


def test_other_peers_reach_no_port_for_metrics(monitored: Release) -> None:
    """Not even with the labels of a part of the shop."""
    edge = f"{monitored.component('gateway')}:8080"
    ports = list(addresses(monitored).values())
    if set(ports) & reached(monitored.namespace, monitored.image, [], ports, {"app": "walled"}):
        assert not _enforced(monitored), "a stranger reaches a port for metrics"
        pytest.skip("the cluster's network plugin enforces no network policies")
    demo = dict(part.split("=") for part in monitored.selector("demo").split(","))
    demo["app.kubernetes.io/name"] = "shopping-cart"
    product = f"{monitored.component('product')}:50052"
    assert reached(monitored.namespace, monitored.image, [product], ports, demo) == {product}
    assert reached(monitored.namespace, monitored.image, [edge, *ports], [], SCRAPER) == {edge, *ports}


def _enforced(shop: Release) -> bool:
    """Whether the network plugin enforces policies: no stranger may reach a database."""
    database = f"{shop.component('product-db')}:5432"
    return not reached(shop.namespace, shop.image, [], [database], {"app": "walled"})


def monitor(shop: Release) -> Object:
    return shop.namespace.one("podmonitor", shop.component("metrics"))


def test_monitoring_comes_and_goes_with_the_release(monitored: Release) -> None:
    """A change of the PodMonitor replaces no pod."""
    place = monitored.namespace
    [rules] = place.get("prometheusrules", monitored.selector())
    assert f'namespace="{place.name}"' in json.dumps(rules["spec"]).replace("\\", "")
    dashboards = place.get("configmaps", f"{monitored.selector()},grafana_dashboard=1")
    assert len(dashboards) == len(list((tools.CHART / "files" / "monitoring").glob("*.json")))

    before = {pod["metadata"]["uid"] for component in COMPONENTS for pod in monitored.pods(component)}
    monitored.upgrade("--set", "telemetry.metrics.podMonitor.interval=15s", "--wait", "--timeout", "200s")
    assert {each["interval"] for each in monitor(monitored)["spec"]["podMetricsEndpoints"]} == {"15s"}
    assert {pod["metadata"]["uid"] for component in COMPONENTS for pod in monitored.pods(component)} == before

    monitored.uninstall()
    for kind in ("podmonitors", "prometheusrules", "configmaps"):
        assert place.get(kind, monitored.selector()) == []
