"""Names: invalid ones are rejected early, and no two releases share one."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart import tools

LONG = 52 * "r"


def names(release: str) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in tools.objects(release=release)}


def test_long_release_names_do_not_collide() -> None:
    assert not names(LONG + "a") & names(LONG + "b")


def test_long_names_fit_kubernetes_limits() -> None:
    """Names become labels and host names of at most 63 characters; a StatefulSet's leaves room for a hash."""
    for kind, name in names(LONG + "a"):
        assert len(name) <= (52 if kind == "StatefulSet" else 63), name


def test_name_within_limit_is_unchanged() -> None:
    """Otherwise an upgrade would rename the objects of an existing release."""
    release = f"{27 * 'r'}"
    found = {name for kind, name in names(release) if kind == "StatefulSet"}
    assert found == {f"{release}-shopping-cart-order-db", f"{release}-shopping-cart-product-db"}
    assert {len(name) for name in found} == {50, 52}
    one_more = {name for kind, name in names(release + "r") if kind == "StatefulSet"}
    assert f"{release}r-shopping-cart-order-db" in one_more
    assert f"{release}r-shopping-cart-product-db" not in one_more


@pytest.mark.parametrize("release", ["1shop", "shop.v1"])
def test_invalid_release_name_is_rejected(release: str) -> None:
    done = tools.run("template", release, str(tools.CHART))
    assert done.returncode != 0
    assert "set fullnameOverride" in done.stderr


def test_fullname_override_allows_any_release() -> None:
    found = tools.objects("--set", "fullnameOverride=shop", release="1shop")
    services = {each["metadata"]["name"] for each in found if each["kind"] == "Service"}
    assert services == {"shop-gateway", "shop-order", "shop-order-db", "shop-product", "shop-product-db"}


def test_names_of_digits_are_texts() -> None:
    """Kubernetes refuses a label or a namespace that is a number, and the operator such a label of an alert."""
    monitoring = [f"telemetry.metrics.{each}.enabled=true" for each in ("podMonitor", "rules")]
    sets = ["fullnameOverride=shop", "nameOverride=789", *monitoring]
    arguments = [part for each in sets for part in ("--set-string" if "name" in each else "--set", each)]
    done = tools.run("template", "123", str(tools.CHART), "--namespace", "456", *arguments)
    assert done.returncode == 0, done.stderr
    for each in yaml.safe_load_all(done.stdout):
        assert not {123, 456, 789} & set(numbers(each)), each["metadata"]["name"]


def numbers(node: Any) -> Iterator[int]:
    """Yields all whole numbers of an object."""
    if isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from numbers(each)
    elif isinstance(node, int):
        yield node
