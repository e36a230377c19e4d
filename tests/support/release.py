"""A release of the chart on a cluster, and what tests look at in it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.chart import tools
from tests.support.kube import Namespace, Object, eventually, helm

COMPONENTS = ("product", "order", "gateway")
"""What has to be ready for the shop to be."""

REQUESTS = {
    f"{container}.resources.requests.cpu": "10m"
    for container in ("product", "order", "gateway.envoy", "gateway.sse", "postgresql")
}
"""Values with which the releases of several tests fit on one small node."""


def image_of(name: str) -> str:
    """Returns the image that is to be tested: `shop` as IMAGE names it, `postgres` as POSTGRES_IMAGE does.

    Without these variables it is the chart's default.
    """
    variable = {"shop": "IMAGE", "postgres": "POSTGRES_IMAGE"}[name]
    values = yaml.safe_load((tools.CHART / "values.yaml").read_text())
    chart = yaml.safe_load((tools.CHART / "Chart.yaml").read_text())
    image = values["image"] if name == "shop" else values["postgresql"]["image"]
    return os.environ.get(variable) or f"{image['repository']}:{image['tag'] or chart['appVersion']}"


@dataclass
class Release:
    """`helm install NAME CHART`, with the image under test."""

    namespace: Namespace
    image: str
    name: str = "shop"
    values: Mapping[str, str] = field(default_factory=dict)
    """What is said to every install and upgrade, as `--set` takes it, beside REQUESTS."""

    def install(self, *arguments: str, chart: Path = tools.CHART, image: str = "", **timing: float) -> None:
        self._helm("install", chart, image, *arguments, **timing)

    def upgrade(self, *arguments: str, chart: Path = tools.CHART, image: str = "", **timing: float) -> None:
        self._helm("upgrade", chart, image, *arguments, **timing)

    def rollback(self, revision: int, *arguments: str) -> None:
        helm("rollback", self.name, str(revision), *self._place(), *arguments)

    def uninstall(self) -> None:
        helm("uninstall", self.name, *self._place(), "--wait", "--timeout", "120s")

    def test(self) -> str:
        """Returns what `helm test` prints, and fails if it fails. With Helm 3 its pods stay, for their logs."""
        return helm("test", self.name, *self._place(), "--timeout", "180s")

    def notes(self) -> str:
        return helm("get", "notes", self.name, *self._place())

    def _helm(self, verb: str, chart: Path, image: str, *arguments: str, **timing: float) -> None:
        repository, _, tag = (image or self.image).rpartition(":")
        values = {"image.repository": repository, "image.tag": tag, **REQUESTS, **self.values}
        sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        helm(verb, self.name, str(chart), *self._place(), *sets, *arguments, **timing)

    def _place(self) -> tuple[str, str]:
        return "--namespace", self.namespace.name

    def component(self, component: str) -> str:
        """The name of a component's objects."""
        full = self.name if "shopping-cart" in self.name else f"{self.name}-shopping-cart"
        return f"{full}-{component}"

    @property
    def edge(self) -> str:
        """The edge's address inside the cluster."""
        return f"http://{self.component('gateway')}.{self.namespace.name}:8080"

    def selector(self, component: str = "") -> str:
        which = f",app.kubernetes.io/component={component}" if component else ""
        return f"app.kubernetes.io/instance={self.name}{which}"

    def pods(self, component: str) -> list[Object]:
        """A component's pods that are not on their way out."""
        found = self.namespace.get("pods", self.selector(component))
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod(self, component: str) -> str:
        """The name of the one pod of a component."""
        [pod] = self.pods(component)
        return str(pod["metadata"]["name"])

    def until_ready(self, seconds: float = 180, *, instead_of: Object | None = None) -> float:
        """Waits until every pod that is to run is ready; the seconds that it took.

        `instead_of` is a pod that was killed: it has to be gone, and another of its component there.
        """
        began = time.monotonic()
        eventually(lambda: self.is_ready(instead_of), seconds, f"every pod of {self.name} is ready")
        return time.monotonic() - began

    def is_ready(self, killed: Object | None = None) -> bool:
        """Returns whether every pod that is to run is ready. `killed` has to be replaced."""
        pods = self.namespace.get("pods", self.selector())
        running = [pod for pod in pods if pod["status"]["phase"] != "Succeeded"]
        wanted = {*COMPONENTS} | ({_component(killed)} if killed else set())
        if killed and killed["metadata"]["uid"] in [pod["metadata"]["uid"] for pod in running]:
            return False
        return {_component(pod) for pod in running} >= wanted and all(is_ready(pod) for pod in running)

    def rolled_out(self, component: str, seconds: int = 180) -> None:
        """Waits until all pods of a component are the new ones, and the old ones are gone."""
        deployment = f"deployment/{self.component(component)}"
        self.namespace.kubectl("rollout", "status", deployment, f"--timeout={seconds}s", timeout=seconds + 10)
        wanted = self.namespace.one("deployment", self.component(component))["spec"]["replicas"]
        eventually(
            lambda: len(self.namespace.get("pods", self.selector(component))) == wanted,
            seconds,
            f"the old pods of {component} are gone",
        )


def _component(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def is_ready(pod: Object) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
