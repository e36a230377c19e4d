"""What stands beside the chart: k8s/ and skaffold.yaml, as the real API server and the real skaffold take them."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.chart import tools
from tests.support.kube import CommandFailed, Object, kubectl, run
from tests.support.release import COMPONENTS

OTHERS = {"kind-config.yaml"}
"""Not for kubectl: kind reads it. Nor are files of values."""

MANIFESTS = sorted(
    str(path.relative_to(tools.ROOT))
    for path in (tools.ROOT / "k8s").rglob("*.yaml")
    if path.name not in OTHERS and not path.name.startswith("values-")
)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_api_server_accepts_manifest(manifest: str) -> None:
    """A dry run at the server, with the admission of the operators whose kinds they are."""
    found: list[Object] = list(yaml.safe_load_all((tools.ROOT / manifest).read_text()))
    for each in found:
        group = each["apiVersion"].partition("/")[0]
        if "." in group and each["kind"] not in kubectl("api-resources", f"--api-group={group}", "--no-headers"):
            pytest.skip(f"the cluster knows no {each['kind']} of {group}")
        # The namespace of the manifests need not be there.
        each["metadata"].pop("namespace", None)
    kubectl("apply", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump_all(found))


def test_api_server_accepts_autoscalers_with_metrics() -> None:
    rendered = tools.objects("--values", str(tools.ROOT / "k8s" / "autoscaling" / "values-autoscaling.yaml"))
    autoscalers = [each for each in rendered if each["kind"] == "HorizontalPodAutoscaler"]
    assert len(autoscalers) == 3
    for each in autoscalers:
        each["metadata"].pop("namespace", None)
    kubectl("apply", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump_all(autoscalers))


def test_kind_has_two_workers() -> None:
    config = yaml.safe_load((tools.ROOT / "k8s" / "kind-config.yaml").read_text())
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]


@pytest.fixture
def skaffold() -> str:
    found = shutil.which("skaffold")
    if not found:
        pytest.skip("skaffold is not on PATH")
    return found


@pytest.mark.parametrize("profile", ["", "dev", "cnpg", "cnpg-pooler"])
def test_skaffold_values_exist_in_the_chart(skaffold: str, profile: str) -> None:
    """As skaffold reads its file, and the chart's schema takes the values: also where the two cannot work together."""
    said = run([skaffold, "diagnose", "--yaml-only", *_which(profile)])
    [release] = yaml.safe_load(said)["deploy"]["helm"]["releases"]
    files = [part for each in release.get("valuesFiles", ()) for part in ("--values", each)]
    sets = [part for key, value in release.get("setValues", {}).items() for part in ("--set", f"{key}={value}")]
    _check(tools.objects(*files, *sets), profile)


@pytest.mark.parametrize("profile", ["", "dev", "cnpg", "cnpg-pooler"])
def test_skaffold_renders_the_shop(skaffold: str, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Helm 3, which skaffold 2.16 needs."""
    helm = Path(tools.require(tools.helm3))
    monkeypatch.setenv("PATH", os.pathsep.join((str(helm.parent), os.environ["PATH"])))
    rendered = run([skaffold, "render", "--digest-source=tag", *_which(profile)])
    assert "image: shopping-cart:git-" in rendered.replace('"', ""), "a tag of digits alone is a number to Helm"
    _check(list(yaml.safe_load_all(rendered)), profile)


def _which(profile: str) -> list[str]:
    return ["--filename", str(tools.ROOT / "skaffold.yaml"), *(["--profile", profile] if profile else [])]


def _check(rendered: list[Object], profile: str) -> None:
    deployments = {each["metadata"]["name"]: each for each in rendered if each and each["kind"] == "Deployment"}
    assert deployments.keys() >= {f"shop-shopping-cart-{component}" for component in COMPONENTS}
    product = deployments["shop-shopping-cart-product"]["spec"]["template"]["spec"]["containers"][0]
    assert product["image"].startswith("shopping-cart:")
    environment = {each["name"]: each for each in product["env"]}
    assert environment["LOG_FORMAT"]["value"] == ("text" if profile == "dev" else "json")
    bundled = [each for each in rendered if each and each["kind"] == "StatefulSet"]
    assert len(bundled) == (0 if profile.startswith("cnpg") else 2)


def test_skaffold_refuses_unknown_profile(skaffold: str) -> None:
    with pytest.raises(CommandFailed):
        run([skaffold, "diagnose", "--yaml-only", *_which("other")])
