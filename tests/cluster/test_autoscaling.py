"""Autoscaling, where the cluster measures."""

import pytest

from tests.support.kube import CommandFailed, Namespace, eventually, helm, kubectl
from tests.support.release import Release
from tests.support.traffic import traffic

REQUEST = {"product.resources.requests.cpu": "100m"}
"""The chart's own request, of which the autoscaler takes a share."""


@pytest.mark.timeout(720, func_only=True)
def test_product_scales_under_load(own: Namespace, image: str) -> None:
    try:
        kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
    except CommandFailed:
        pytest.skip("the cluster has no metrics server")
    wanted = {"enabled": "true", "minReplicas": "1", "maxReplicas": "3"}
    values = {f"product.autoscaling.{key}": value for key, value in wanted.items()}
    # All traffic comes from one pod.
    unlimited = {"gateway.rateLimit.requestsPerSecond": "0"}
    shop = Release(own, image, values={**values, **unlimited, **REQUEST, "demo.enabled": "false"})
    shop.install()
    shop.until_ready()
    with traffic(shop, readers=16, pause=0) as outcome:
        eventually(lambda: _replicas(shop) >= 2, 240, "the autoscaler makes pods")
        eventually(lambda: len(shop.pods("product")) >= 2, 30, "the Deployment follows")
        # An upgrade leaves the number alone: the Deployment has none of its own.
        scaled = _replicas(shop)
        shop.upgrade()
        assert _replicas(shop) >= scaled
    print(outcome.summary())
    assert outcome.failures == []


@pytest.mark.timeout(720, func_only=True)
def test_enabling_autoscaler_removes_no_pod(own: Namespace, image: str) -> None:
    """The number of pods was Helm's, and an upgrade without it would make it 1 until the autoscaler looks."""
    if helm("version", "--short").startswith("v3."):
        pytest.skip("Helm 3 patches the number away; docs/operations.md says when to switch it on")
    shop = Release(own, image, values={"product.replicas": "3", **REQUEST, "demo.enabled": "false"})
    shop.install()
    shop.until_ready()
    before = _names(shop)
    assert len(before) == 3
    # The second time, it is the autoscaler's number, or still the one that was kept.
    for _ in range(2):
        shop.upgrade("--set", "product.autoscaling.enabled=true,product.autoscaling.minReplicas=3")
        assert _replicas(shop) == 3
        assert _names(shop) == before


def _names(shop: Release) -> set[str]:
    return {str(pod["metadata"]["name"]) for pod in shop.pods("product")}


def _replicas(shop: Release) -> int:
    return int(shop.namespace.one("deployment", shop.component("product"))["spec"]["replicas"])
