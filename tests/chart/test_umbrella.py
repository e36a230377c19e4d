"""The chart as a dependency of another one, as platform teams have it."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.chart import tools
from tests.chart.sets import DIGEST

PARENT = {
    "apiVersion": "v2",
    "name": "platform",
    "version": "1.0.0",
    "dependencies": [
        {
            "name": "shopping-cart",
            "version": tools.version(),
            "repository": "",
            "condition": "shop.enabled",
            "alias": "shop",
        }
    ],
}


@pytest.fixture(scope="module")
def umbrella(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("umbrella")
    (folder / "Chart.yaml").write_text(yaml.safe_dump(PARENT))
    (folder / "values.yaml").write_text("shop: {enabled: true, gateway: {sse: }}\n")
    shutil.copytree(tools.CHART, folder / "charts" / "shopping-cart")
    return folder


def images(rendered: str) -> set[str]:
    return set(re.findall(r'image: "?([^"\s]+)', rendered))


def test_condition_disables_the_chart(umbrella: Path) -> None:
    assert tools.objects("--set", "shop.enabled=false", chart=umbrella) == []


def test_global_registry_applies_to_all_images(umbrella: Path) -> None:
    rendered = tools.template("--set", "global.imageRegistry=registry.example.com:5000/mirror", chart=umbrella)
    assert images(rendered) == {
        f"registry.example.com:5000/mirror/shopping-cart:{tools.version()}",
        "registry.example.com:5000/mirror/envoyproxy/envoy:v1.40.0",
        "registry.example.com:5000/mirror/postgres:18",
    }


def test_registry_replaces_host_of_repository() -> None:
    sets = (
        "image.repository=old.example.com:5000/shop/cart,image.registry=new.example.com,postgresql.image.registry=pg.io"
    )
    rendered = tools.template("--set", sets, "--set", f"image.digest={DIGEST}")
    assert images(rendered) == {
        f"new.example.com/shop/cart@{DIGEST}",
        "envoyproxy/envoy:v1.40.0",
        "pg.io/postgres:18",
    }


def test_global_pull_secrets_are_merged() -> None:
    sets = "global.imagePullSecrets[0]=one,global.imagePullSecrets[1].name=two,imagePullSecrets[0].name=one"
    for each in tools.objects("--set", sets):
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            secrets = each["spec"]["template"]["spec"]["imagePullSecrets"]
            assert secrets == [{"name": "one"}, {"name": "two"}], each["metadata"]["name"]
