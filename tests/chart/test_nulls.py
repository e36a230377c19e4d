"""A missing value counts as its default: a key without a value, or one that an older chart did not have."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import tools

REMOVABLE = {"resources", "parameters", "podSecurityContext", "containerSecurityContext"}
"""Below these a null removes an entry, as usual in Helm."""
NULLABLE = {"migration.ttlSecondsAfterFinished"}
"""A null is a valid value."""

KeyPath = tuple[str, ...]


def defaults() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((tools.CHART / "values.yaml").read_text())
    return loaded


def paths(node: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yields the path of every value whose null counts as absent."""
    for key, value in node.items():
        if ".".join((*path, key)) not in NULLABLE:
            yield (*path, key)
        if isinstance(value, dict) and key not in REMOVABLE:
            yield from paths(value, (*path, key))


PATHS = list(paths(defaults()))
DEPTHS = sorted({len(path) for path in PATHS})


def nulls(depth: int) -> dict[str, Any]:
    """Returns values with a null at each path of the given length."""
    made: dict[str, Any] = {}
    for path in PATHS:
        if len(path) == depth:
            node = made
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = None
    return made


def comparable(rendered: str) -> list[dict[str, Any]]:
    """Returns the objects without generated secrets and without the tests, which depend on Helm's version."""
    found = [each for each in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if each and each["kind"] != "Pod"]
    for each in found:
        if each["kind"] == "Secret":
            assert each["data"].pop("password", "") or each["data"].pop("current")
    return found


def render(values: dict[str, Any], folder: Path, program: str = "", chart: Path = tools.CHART) -> str:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    version = ("--kube-version", tools.VERSIONS[0])
    arguments = ("template", "shop", str(chart), "--namespace", "shop", *version, "--values", str(file))
    done = tools.run(*arguments, program=program)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_null_paths_are_complete() -> None:
    assert len(PATHS) > 300
    assert {("networkPolicy", "dns"), ("postgresql", "image", "repository"), ("gateway", "sse")} <= set(PATHS)


@pytest.mark.parametrize("depth", DEPTHS)
def test_null_counts_as_default(depth: int, tmp_path: Path) -> None:
    assert comparable(render(nulls(depth), tmp_path)) == comparable(tools.template())


def test_null_counts_as_default_with_helm_3(tmp_path: Path) -> None:
    program = tools.require(tools.helm3)
    assert comparable(render(nulls(2), tmp_path, program)) == comparable(tools.template())


def test_values_of_older_chart_are_enough(tmp_path: Path) -> None:
    """`helm upgrade --reuse-values` ignores the new chart's defaults, also for new keys."""
    older = tmp_path / "shopping-cart"
    shutil.copytree(tools.CHART, older)
    (older / "values.yaml").write_text("{}")
    assert comparable(render({}, tmp_path, chart=older)) == comparable(tools.template())


def test_null_removes_entry_of_user_map(tmp_path: Path) -> None:
    values = {
        "product": {"resources": {"limits": None}, "podSecurityContext": {"runAsUser": None, "fsGroup": None}},
        "gateway": {"envoy": {"containerSecurityContext": {"runAsUser": None}}},
        "postgresql": {"parameters": {"shared_buffers": None}},
        "migration": {"ttlSecondsAfterFinished": None},
    }
    rendered = comparable(render(values, tmp_path))
    specs = {
        (each["kind"], each["metadata"]["name"].removeprefix("shop-shopping-cart-")): each["spec"]
        for each in rendered
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    product = specs["Deployment", "product"]["template"]["spec"]
    assert product["containers"][0]["resources"].keys() == {"requests"}
    assert product["securityContext"].keys() == {"runAsNonRoot", "runAsGroup", "seccompProfile"}
    [envoy] = specs["Deployment", "gateway"]["template"]["spec"]["initContainers"]
    assert "runAsUser" not in envoy["securityContext"]
    server = specs["StatefulSet", "order-db"]["template"]["spec"]["containers"][0]
    assert server["args"] == ["-c", "max_connections=100"]
