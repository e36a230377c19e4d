"""Rollouts, crashes and scaling, while clients read, order, and follow orders live."""

from base64 import b64decode

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.eventually import eventually as comes_true
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
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
