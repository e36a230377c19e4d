"""A Kubernetes cluster for tests, whichever KUBECONFIG names. kubectl and helm do the work, as they do for people."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import yaml

from tests.chart import tools

Object = dict[str, Any]
Found = TypeVar("Found")

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}

SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class CommandFailed(AssertionError):
    """A command ended with another status than 0; the message is what it said."""


def run(command: Sequence[str], *, stdin: str = "", timeout: float = 120) -> str:
    """What a command printed. Raises CommandFailed; `timeout` is in seconds."""
    done = subprocess.run(command, input=stdin, check=False, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def helm(*arguments: str, timeout: float = 300) -> str:
    return run([tools.helm(), *arguments], timeout=timeout)


def kubectl(*arguments: str, stdin: str = "", timeout: float = 120) -> str:
    return run(["kubectl", *arguments], stdin=stdin, timeout=timeout)


def require_cluster() -> None:
    """Ends the run of pytest if no cluster responds."""
    try:
        kubectl("get", "nodes", timeout=30)
    except (CommandFailed, OSError) as error:
        pytest.exit(f"no cluster responds at the address in KUBECONFIG: {error}", returncode=1)


def require_cnpg() -> None:
    """Skips the test if the cluster lacks the CloudNativePG operator; fails it if REQUIRE_CNPG is set."""
    try:
        kubectl("get", "crd", "clusters.postgresql.cnpg.io")
    except CommandFailed:
        reason = "the cluster has no CloudNativePG operator"
        if os.environ.get("REQUIRE_CNPG"):
            pytest.fail(reason)
        pytest.skip(reason)


def eventually(look: Callable[[], Found], seconds: float, what: str) -> Found:
    """The first answer that is true; CommandFailed counts as none. Fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            last: object = None
            if found := look():
                return found
        except CommandFailed as failed:
            last = failed
        assert time.monotonic() < end, f"not within {seconds:g} s: {what} {last or ''}"
        time.sleep(0.5)


@dataclass(frozen=True)
class Namespace:
    """A namespace of the tests' own, which admits nothing but restricted pods."""

    name: str

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = 120) -> str:
        return kubectl("--namespace", self.name, *arguments, stdin=stdin, timeout=timeout)

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, selector: str = "") -> list[Object]:
        items: list[Object] = json.loads(self.kubectl("get", kind, "--selector", selector, "--output", "json"))["items"]
        return items

    def one(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.kubectl("get", kind, name, "--output", "json"))
        return found

    def logs(self, pod: str, *more: str) -> str:
        return self.kubectl("logs", pod, *more)

    def execute(self, pod: str, *command: str, container: str = "", stdin: str = "") -> str:
        into = ("--container", container) if container else ()
        return self.kubectl("exec", "--stdin", pod, *into, "--", *command, stdin=stdin)

    def pod(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        *,
        files: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        uid: int = 10001,
        port: int = 0,
    ) -> None:
        """Starts a pod that runs to its end, with `files` at /files and an empty /tmp.

        With a port it is ready once it listens there, and else once it runs.
        """
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(files or {})},
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name, **(labels or {})}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": uid,
                        "runAsGroup": uid,
                        "fsGroup": uid,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "main",
                            "image": image,
                            "command": list(command),
                            "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
                            "securityContext": SECURITY,
                            **({"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}} if port else {}),
                            "volumeMounts": [
                                {"name": "files", "mountPath": "/files"},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                        }
                    ],
                    "volumes": [{"name": "files", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}],
                },
            },
        )

    def phase(self, pod: str) -> str:
        return str(self.one("pod", pod)["status"]["phase"])

    def ended(self, pod: str, seconds: float) -> str:
        """The log of a pod that has run to its end; fails if it does not end well in time. The pod is gone then."""
        phase = eventually(
            lambda: (now := self.phase(pod)) in ("Succeeded", "Failed") and now, seconds, f"pod {pod} has ended"
        )
        log = self.logs(pod)
        assert phase == "Succeeded", log
        self.remove(pod)
        return log

    def remove(self, pod: str) -> None:
        """Takes away what `pod` made."""
        self.kubectl("delete", f"pod/{pod}", f"configmap/{pod}", "--ignore-not-found", "--wait=true")

    def evict(self, pod: str) -> bool:
        """Asks for what `kubectl drain` asks for. Returns False if the disruption budget forbids it."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.name}}
        path = f"/api/v1/namespaces/{self.name}/pods/{pod}/eviction"
        try:
            self.kubectl("create", "--raw", path, "--filename", "-", stdin=json.dumps(body))
        except CommandFailed as failed:
            if "disruption budget" not in str(failed):
                raise
            return False
        return True

    @contextmanager
    def forward(self, target: str, port: int, local: int = 0) -> Iterator[int]:
        """A local port that leads to a port of a pod or of a Service's one pod, as `kubectl port-forward` has it."""
        command = ["kubectl", "--namespace", self.name, "port-forward", target, f"{local or ''}:{port}"]
        with subprocess.Popen(
            [*command, "--address", "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                assert process.stdout
                said = process.stdout.readline()
                match = re.search(r"127\.0\.0\.1:(\d+)", said)
                assert match, said + process.stdout.read()
                yield int(match[1])
            finally:
                process.terminate()


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """A fresh namespace, deleted at the end of the block with all that is in it (KEEP_NAMESPACES=1 leaves it)."""
    metadata = {"name": name, "labels": RESTRICTED}
    kubectl(
        "create",
        "--filename",
        "-",
        stdin=yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
    )
    try:
        yield Namespace(name)
    finally:
        if not os.environ.get("KEEP_NAMESPACES"):
            kubectl("delete", "namespace", name, "--wait=false")
