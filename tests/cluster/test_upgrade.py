"""An upgrade from the release before this one, and the way back, under load."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chart import tools
from tests.cluster.test_releases import buy, sees
from tests.support.kube import Namespace
from tests.support.release import COMPONENTS, Release
from tests.support.traffic import traffic


@pytest.fixture
def previous_chart(tmp_path: Path) -> Path:
    """The chart of the newest release, and until there is one, the chart as it first was."""
    commit = (
        _git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD~1").partition("\n")[0]
        or _git("log", "--diff-filter=A", "--format=%H", "--", "helm/shopping-cart/Chart.yaml").rpartition("\n")[2]
    )
    if not commit or commit == _git("rev-parse", "HEAD"):
        pytest.skip("this checkout has no history with an earlier chart")
    archive = subprocess.run(
        ["git", "archive", commit, "helm/shopping-cart", "envoy"], cwd=tools.ROOT, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "--extract", "--directory", str(tmp_path)], input=archive, check=True)
    return tmp_path / "helm" / "shopping-cart"


def _git(*arguments: str) -> str:
    """What git says; nothing where there is no git or no history."""
    if not shutil.which("git"):
        return ""
    done = subprocess.run(["git", *arguments], cwd=tools.ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


@pytest.mark.timeout(480)
async def test_an_upgrade_and_a_rollback_fail_no_call_and_keep_the_data(
    own: Namespace, image: str, previous_image: str, previous_chart: Path
) -> None:
    shop = Release(own, image)
    shop.install(chart=previous_chart, image=previous_image)
    shop.until_ready()
    passwords = _passwords(shop)
    with traffic(shop) as outcome:
        first = await buy(shop)
        # The annotations have every pod replaced, also where the two releases have the same image.
        shop.upgrade(*_annotated("new"), "--wait", "--timeout", "150s", timeout=160)
        for component in COMPONENTS:
            shop.rolled_out(component)
    print("upgrade:", outcome.summary())
    assert outcome.failures == []
    assert outcome.wrong == []
    assert await sees(shop, first)
    second = await buy(shop)
    with traffic(shop) as outcome:
        shop.rollback(1, "--wait", "--timeout", "150s")
        for component in COMPONENTS:
            shop.rolled_out(component)
    print("rollback:", outcome.summary())
    assert outcome.failures == []
    assert outcome.wrong == []
    assert await sees(shop, first)
    assert await sees(shop, second)
    assert _passwords(shop) == passwords
    shop.test()


def _annotated(note: str) -> list[str]:
    return [part for each in COMPONENTS for part in ("--set", f"{each}.podAnnotations.test/upgrade={note}")]


def _passwords(shop: Release) -> list[dict[str, str]]:
    return [shop.namespace.one("secret", shop.component(f"{service}-db"))["data"] for service in ("product", "order")]
