"""More than one release, and what one leaves behind."""

import json

import pytest

from tests.support.buyer import buy, sees
from tests.support.kube import Namespace, eventually, kubectl
from tests.support.release import Release

KEPT = {"persistentvolumeclaims"}
"""What an uninstalled release leaves: its data."""

PASSING = {"events", "events.events.k8s.io", "pods.metrics.k8s.io", "endpoints"}
"""What is not objects of anybody's, or follows another."""


@pytest.mark.timeout(900, func_only=True)
async def test_two_releases_share_a_namespace(shop: Release, image: str) -> None:
    two = Release(shop.namespace, image, "two", {"demo.enabled": "false"})
    before = everything(shop.namespace)
    two.install()
    two.until_ready()
    bought = await buy(two)
    two.test()
    assert await sees(two, bought)
    assert not await sees(shop, bought)
    two.uninstall()
    # Pods take their time to go.
    eventually(lambda: leftovers(two, before) <= KEPT, 60, "nothing but the data is left")
    left = everything(shop.namespace) - before
    assert len(left) == 2
    await buy(shop)

    # The data is there again for a release of the same name, whatever its passwords are now.
    two.install()
    two.until_ready()
    assert await sees(two, bought)
    two.uninstall()
    for kind, name in left:
        shop.namespace.kubectl("delete", kind, name)


def leftovers(release: Release, before: set[tuple[str, str]]) -> set[str]:
    """The kinds of what was not there before."""
    return {kind for kind, _ in everything(release.namespace) - before}


def everything(namespace: Namespace) -> set[tuple[str, str]]:
    """Kind and name of every object in a namespace."""
    # Tests that run beside this one add and remove kinds.
    return eventually(lambda: _everything(namespace), 30, "the objects are listed")


def _everything(namespace: Namespace) -> set[tuple[str, str]]:
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    wanted = ",".join(sorted(set(kinds) - PASSING))
    items = json.loads(namespace.kubectl("get", wanted, "--output", "json"))["items"]
    plural = {item["kind"]: item["kind"].lower() + "s" for item in items}
    return {(plural[item["kind"]], item["metadata"]["name"]) for item in items}
