"""Golden renders show what a change does to the chart's objects. `make generate` updates them."""

import subprocess

import pytest

from tests.chart import renders, tools
from tests.chart.sets import SETS


@pytest.mark.parametrize("name", SETS)
def test_render_matches_golden_file(name: str) -> None:
    """Compared as objects, so Helm 3 and 4 may differ in how they write YAML."""
    assert renders.text(name) == renders.path(name).read_text(), "run `make generate`"


@pytest.mark.parametrize("name", SETS)
def test_strict_lint_passes(name: str) -> None:
    done = tools.run("lint", "--strict", str(tools.CHART), *SETS[name])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", tools.VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_objects_match_kubernetes_schemas(name: str, version: str, kubeconform: None) -> None:
    _validate(tools.template(*SETS[name]), version)


@pytest.mark.parametrize("file", ["k8s/namespace.yaml", "k8s/cnpg/network-policies.yaml", "k8s/gateway-api.yaml"])
def test_manifests_outside_chart_are_valid(file: str, kubeconform: None) -> None:
    _validate((tools.ROOT / file).read_text(), tools.VERSIONS[0])


def _validate(manifests: str, version: str) -> None:
    """Some custom resources have no schema here: their operators check them."""
    tools.crds()
    command = [tools.kubeconform(), "-strict"]
    for folder in (tools.schemas() / version, tools.CACHE / "crds"):
        command += ["-schema-location", f"{folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"]
    command += ["-skip", "Gateway,HTTPRoute,GRPCRoute,postgresql.cnpg.io/v1/Cluster", "-"]
    done = subprocess.run(command, input=manifests, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
