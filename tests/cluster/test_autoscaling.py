"""Autoscaling, where the cluster measures."""

import pytest

from tests.support.kube import CommandFailed, Namespace, eventually, kubectl
from tests.support.release import Release
from tests.support.traffic import traffic


@pytest.mark.timeout(720, func_only=True)
def test_product_scales_under_load(own: Namespace, image: str) -> None:
    try:
        kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
    except CommandFailed:
        pytest.skip("the cluster has no metrics server")
    wanted = {"enabled": "true", "minReplicas": "1", "maxReplicas": "3"}
    values = {f"product.autoscaling.{key}": value for key, value in wanted.items()}
    shop = Release(own, image, values={**values, "demo.enabled": "false"})
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


def _replicas(shop: Release) -> int:
    return int(shop.namespace.one("deployment", shop.component("product"))["spec"]["replicas"])
