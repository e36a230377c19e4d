"""Rollouts, crashes and scaling, while clients read, order, and follow orders live."""

import json
from base64 import b64decode

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.eventually import eventually as comes_true
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.kube import eventually
from tests.support.release import COMPONENTS, Release
from tests.support.traffic import Outcome, traffic


@pytest.mark.parametrize("component", COMPONENTS)
def test_rollout_fails_no_call_and_loses_no_status(shop: Release, component: str) -> None:
    with traffic(shop) as outcome:
        shop.namespace.kubectl("rollout", "restart", f"deployment/{shop.component(component)}")
        shop.rolled_out(component)
    print(outcome.summary())
    assert outcome.failures == []
    nothing_lost(outcome)
    if component == "gateway":
        assert outcome.connections > outcome.watched, "no stream was cut: the rollout was not seen"


def nothing_lost(outcome: Outcome) -> None:
    assert outcome.wrong == []
    assert outcome.watched >= 10
    assert outcome.calls > 100


@pytest.mark.timeout(900, func_only=True)
async def test_killed_pods_lose_no_status_and_no_order(shop: Release) -> None:
    """Calls do fail while the one pod of a component is gone; streams resume, and what was told stays so."""
    with traffic(shop) as outcome:
        # The gateway first, while each watcher has a stream for it to cut: where orders fail, nobody has one.
        for component in ("gateway", "product", "order", "order-db", "product-db"):
            [pod] = shop.pods(component)
            shop.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
            shop.until_ready(90, instead_of=pod)
    print(outcome.summary())
    nothing_lost(outcome)
    assert outcome.connections > outcome.watched, "no stream was cut: nothing was killed"
    with (
        shop.namespace.forward(f"pod/{shop.pod('order-db')}", 5432) as order_port,
        shop.namespace.forward(f"pod/{shop.pod('product-db')}", 5432) as product_port,
    ):
        orders = await psycopg.AsyncConnection.connect(conninfo(shop, "order", order_port), autocommit=True)
        products = await psycopg.AsyncConnection.connect(conninfo(shop, "product", product_port), autocommit=True)
        async with orders, products:
            await check_logs(orders)
            await check_stock(products)
            # A hold lives for up to 60 seconds.
            await comes_true(lambda: settled(orders, products), 120)


def conninfo(release: Release, service: str, port: int) -> str:
    secret = release.namespace.one("secret", release.component(f"{service}-db"))["data"]
    keys = {key: b64decode(secret[key]).decode() for key in ("username", "password", "dbname")}
    return make_conninfo(
        host="127.0.0.1", port=port, user=keys["username"], password=keys["password"], dbname=keys["dbname"]
    )


@pytest.mark.timeout(800, func_only=True)
def test_every_product_pod_gets_calls(shop: Release) -> None:
    deployment = f"deployment/{shop.component('product')}"
    shop.namespace.kubectl("scale", deployment, "--replicas=3")
    try:
        eventually(lambda: len(_ready_addresses(shop)) == 3, 60, "three product pods are ready")
        with traffic(shop, readers=4, pause=0.02) as outcome:
            # DNS answers are kept for up to 30 seconds, and Envoy may not know an address yet.
            eventually(lambda: _each_gets_calls(shop), 120, "each gets calls")
        assert outcome.failures == []
    finally:
        shop.namespace.kubectl("scale", deployment, "--replicas=1")
        shop.rolled_out("product")


def _each_gets_calls(shop: Release) -> bool:
    calls = _calls(shop)
    return all(calls.get(each, 0) > 20 for each in _ready_addresses(shop))


def _ready_addresses(shop: Release) -> set[str]:
    """The addresses behind the product's headless Service."""
    name = shop.component("product")
    slices = shop.namespace.get("endpointslices", f"kubernetes.io/service-name={name}")
    return {
        address
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    }


def _calls(shop: Release) -> dict[str, int]:
    """Calls that the edge has sent to each address of product, as Envoy counts them."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9901/clusters?format=json').read().decode())"
    said = shop.namespace.execute(shop.pod("gateway"), "python", "-c", ask, container="sse")
    [product] = [each for each in json.loads(said)["cluster_statuses"] if each["name"] == "product"]
    return {
        host["address"]["socket_address"]["address"]: sum(
            int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == "rq_total"
        )
        for host in product["host_statuses"]
    }
