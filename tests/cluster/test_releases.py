"""More than one release, and what one leaves behind."""

import json

import httpx

from tests.support.kube import Namespace, eventually, kubectl
from tests.support.release import Release
from tests.support.rest import Rest

KEPT = {"persistentvolumeclaims"}
"""What an uninstalled release leaves: its data."""

PASSING = {"events", "events.events.k8s.io", "pods.metrics.k8s.io", "endpoints"}
"""What is not objects of anybody's, or follows another."""


async def test_two_releases_share_a_namespace_and_one_goes_without_a_trace(shop: Release, image: str) -> None:
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


async def buy(release: Release) -> str:
    """A new order's id."""
    with release.namespace.forward(f"service/{release.component('gateway')}", 8080) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            rest = Rest(http)
            return str((await rest.order((await rest.product())["id"]))["id"])


async def sees(release: Release, order_id: str) -> bool:
    with release.namespace.forward(f"service/{release.component('gateway')}", 8080) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            answer = await http.get(f"/api/v1/orders/{order_id}")
            assert answer.status_code in (200, 404), answer.text
            return answer.status_code == 200


def everything(namespace: Namespace) -> set[tuple[str, str]]:
    """Kind and name of every object in a namespace."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    wanted = ",".join(sorted(set(kinds) - PASSING))
    items = json.loads(namespace.kubectl("get", wanted, "--output", "json"))["items"]
    plural = {item["kind"]: item["kind"].lower() + "s" for item in items}
    return {(plural[item["kind"]], item["metadata"]["name"]) for item in items}
