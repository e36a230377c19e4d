"""Names: those that Kubernetes refuses are refused before anything is made, and no two releases share one."""

import pytest

from tests.chart import tools

LONG = 52 * "r"


def names(release: str) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in tools.objects(release=release)}


def test_long_releases_that_differ_at_the_end_share_no_object() -> None:
    assert not names(LONG + "a") & names(LONG + "b")


def test_the_longest_release_name_fits() -> None:
    """Names become labels and host names of at most 63 characters; a StatefulSet's has to leave room for a hash."""
    for kind, name in names(LONG + "a"):
        assert len(name) <= (52 if kind == "StatefulSet" else 63), name


def test_a_name_that_fits_stays_as_it_is() -> None:
    """Also the longest one: the objects of a release that is there must not move."""
    release = f"{27 * 'r'}"
    found = {name for kind, name in names(release) if kind == "StatefulSet"}
    assert found == {f"{release}-shopping-cart-order-db", f"{release}-shopping-cart-product-db"}
    assert {len(name) for name in found} == {50, 52}
    one_more = {name for kind, name in names(release + "r") if kind == "StatefulSet"}
    assert f"{release}r-shopping-cart-order-db" in one_more
    assert f"{release}r-shopping-cart-product-db" not in one_more


@pytest.mark.parametrize("release", ["1shop", "shop.v1"])
def test_a_release_that_no_service_can_be_named_after_is_refused(release: str) -> None:
    done = tools.run("template", release, str(tools.CHART))
    assert done.returncode != 0
    assert "set fullnameOverride" in done.stderr


def test_such_a_release_takes_another_name() -> None:
    found = tools.objects("--set", "fullnameOverride=shop", release="1shop")
    services = {each["metadata"]["name"] for each in found if each["kind"] == "Service"}
    assert services == {"shop-gateway", "shop-order", "shop-order-db", "shop-product", "shop-product-db"}
