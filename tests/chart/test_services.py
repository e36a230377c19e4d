"""The Services: types, address families, and which pods they list."""

from typing import Any

from tests.chart import tools
from tests.chart.pods import pods
from tests.chart.sets import SETS


def edge_service(*arguments: str) -> dict[str, Any]:
    [found] = (
        each["spec"]
        for each in tools.objects(*arguments)
        if (each["kind"], each["metadata"]["name"]) == ("Service", "shop-shopping-cart-gateway")
    )
    return dict(found)


def test_load_balancer_options_are_set() -> None:
    found = edge_service(*SETS["minimal"])
    assert found["loadBalancerClass"] == "example.com/lb"
    assert found["loadBalancerSourceRanges"] == ["192.0.2.0/24", "2001:db8::/32"]
    assert found["allocateLoadBalancerNodePorts"] is False


def test_load_balancer_options_need_that_type() -> None:
    """Kubernetes rejects them for other types."""
    sets = "gateway.service.loadBalancerClass=a.b/c,gateway.service.allocateLoadBalancerNodePorts=false"
    found = edge_service("--set", f"{sets},gateway.service.trafficDistribution=PreferClose")
    assert not {"loadBalancerClass", "allocateLoadBalancerNodePorts"} & found.keys()
    assert found["trafficDistribution"] == "PreferClose"


def test_ip_families_apply_to_all_services() -> None:
    services = [each["spec"] for each in tools.objects(*SETS["options"]) if each["kind"] == "Service"]
    assert len(services) == 5
    for each in services:
        assert (each["ipFamilyPolicy"], each["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])


def test_headless_services_list_unready_pods() -> None:
    """Clients check each pod's health. Without this, pods would appear only after the delayed readiness."""
    services = [each["spec"] for each in tools.objects() if each["kind"] == "Service"]
    headless = [each for each in services if each.get("clusterIP") == "None"]
    assert [each["publishNotReadyAddresses"] for each in headless] == [True, True]
    for pod, _, spec in pods():
        if pod in ("Deployment/shop-shopping-cart-product", "Deployment/shop-shopping-cart-order"):
            [container] = spec["containers"]
            assert container["readinessProbe"]["grpc"]["service"] == "readiness"
            peers = {each["name"]: each.get("value") for each in container["env"]}
            assert (peers["PEERS"], peers["READY_DELAY"]) == (pod.partition("/")[2], "35")
