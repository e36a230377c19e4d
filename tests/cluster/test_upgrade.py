"""An upgrade from the release before this one, and the way back, under load."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster.previous import Nothing, archive, previous
from tests.support.buyer import buy, sees
from tests.support.kube import Namespace
from tests.support.release import COMPONENTS, Release
from tests.support.traffic import Outcome, traffic

DATABASES = ("product-db", "order-db")


@pytest.fixture
def previous_chart(tmp_path: Path) -> Path:
    try:
        files = archive(previous(), "helm/shopping-cart", "envoy")
    except Nothing as nothing:
        pytest.skip(str(nothing))
    subprocess.run(["tar", "--extract", "--directory", str(tmp_path)], input=files, check=True)
    return tmp_path / "helm" / "shopping-cart"


@pytest.mark.timeout(2200, func_only=True)
async def test_an_upgrade_and_a_rollback_fail_no_call_and_keep_the_data(
    own: Namespace, image: str, previous_image: str, previous_chart: Path
) -> None:
    shop = Release(own, image)
    shop.install(chart=previous_chart, image=previous_image)
    shop.until_ready()
    kept = _kept(shop)
    with traffic(shop) as outcome:
        first = await buy(shop)
        # The annotations have every pod replaced, also where the two releases have the same image.
        shop.upgrade(*_annotated("new"), "--wait", "--timeout", "150s", timeout=160)
        _rolled_out(shop)
    _well("upgrade", outcome)
    assert await sees(shop, first)
    assert _kept(shop) == kept
    second = await buy(shop)
    with traffic(shop) as outcome:
        shop.rollback(1, "--wait", "--timeout", "150s")
        _rolled_out(shop)
    _well("rollback", outcome)
    assert await sees(shop, first)
    assert await sees(shop, second)
    assert _kept(shop) == kept
    shop.test()


def _annotated(note: str) -> list[str]:
    return [part for each in COMPONENTS for part in ("--set", f"{each}.podAnnotations.test/upgrade={note}")]


def _rolled_out(shop: Release) -> None:
    for component in COMPONENTS:
        shop.rolled_out(component, 90)


def _well(what: str, outcome: Outcome) -> None:
    print(what, outcome.summary())
    assert outcome.failures == []
    assert outcome.wrong == []
    assert outcome.connections > outcome.watched, "no stream was cut: no pod was replaced"


def _kept(shop: Release) -> list[object]:
    """What has to be the same before and after: the databases' passwords, and their pods."""
    secrets = [shop.namespace.one("secret", shop.component(each))["data"] for each in DATABASES]
    return [
        *secrets,
        *(shop.namespace.one("pod", f"{shop.component(each)}-0")["metadata"]["uid"] for each in DATABASES),
    ]
