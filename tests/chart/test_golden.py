"""Golden renders show what a change makes of the chart. `make generate` makes them anew."""

import subprocess

import pytest

from tests.chart import renders, tools
from tests.chart.sets import SETS


@pytest.mark.parametrize("name", SETS)
def test_a_render_is_the_golden_one(name: str) -> None:
    """Compared as objects, so Helm 3 and 4 may differ in how they write YAML."""
    assert renders.text(name) == renders.path(name).read_text(), "make generate makes it anew"


@pytest.mark.parametrize("name", SETS)
def test_helm_lints_it_strictly(name: str) -> None:
    done = tools.run("lint", "--strict", str(tools.CHART), *SETS[name])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", tools.VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_every_object_is_valid_for_kubernetes(name: str, version: str, kubeconform: None) -> None:
    _validate(tools.template(*SETS[name]), version)


@pytest.mark.parametrize("file", ["k8s/namespace.yaml", "k8s/cnpg/product-db.yaml", "k8s/gateway-api.yaml"])
def test_what_stands_beside_the_chart_is_valid(file: str, kubeconform: None) -> None:
    _validate((tools.ROOT / file).read_text(), tools.VERSIONS[0])


def _validate(manifests: str, version: str) -> None:
    """Kinds that are not Kubernetes' own have no schema here: the operators' admission checks them."""
    place = f"{tools.schemas()}/{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [tools.kubeconform(), "-strict", "-schema-location", place]
    command += ["-skip", "Gateway,HTTPRoute,GRPCRoute,postgresql.cnpg.io/v1/Cluster", "-"]
    done = subprocess.run(command, input=manifests, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
