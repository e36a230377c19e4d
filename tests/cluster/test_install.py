"""What somebody meets who installs the shop with its defaults."""

import os
import re
import subprocess
import sysconfig
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from local.settings import free_ports
from tests.chart import tools
from tests.support.kube import CommandFailed, Object, eventually, kubectl
from tests.support.release import Release


def test_default_install_is_ready_within_90_seconds(shop: Release) -> None:
    """By the pods' own timestamps."""
    pods = [pod for pod in shop.namespace.get("pods", shop.selector()) if pod["status"]["phase"] == "Running"]
    began = min(_time(pod["metadata"]["creationTimestamp"]) for pod in pods)
    ready = max(_time(_ready_since(pod)) for pod in pods)
    print(f"every pod was ready after {(ready - began).total_seconds():.0f} s")
    assert (ready - began).total_seconds() < 90
    restarts = {
        f"{pod['metadata']['name']}/{each['name']}": each["restartCount"]
        for pod in pods
        for each in pod["status"]["containerStatuses"]
    }
    assert set(restarts.values()) == {0}, restarts


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _ready_since(pod: Object) -> str:
    [since] = [each["lastTransitionTime"] for each in pod["status"]["conditions"] if each["type"] == "Ready"]
    return str(since)


def test_helm_test_passes(shop: Release) -> None:
    said = shop.test()
    phases = dict(re.findall(r"(?m)^TEST SUITE: +(\S+)\n(?:.+\n)*?Phase: +(\S+)$", said))
    assert phases == {f"{shop.component('test')}-{check}": "Succeeded" for check in ("rest", "grpc", "order")}, said


def test_every_container_fits_its_memory_request(shop: Release) -> None:
    """A request below what a container takes at rest makes its pod the first to be evicted."""
    try:
        kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
    except CommandFailed:
        pytest.skip("the cluster has no metrics server")
    usage: dict[str, tuple[int, int]] = {}

    def fits() -> bool:
        nonlocal usage
        usage = _usage(shop)
        return bool(usage) and all(used <= wanted for used, wanted in usage.values())

    try:
        # A measurement is old by up to a minute, and may be of the start.
        eventually(fits, 180, "every container is measured, and fits")
    finally:
        print(*(f"{name}: {used} MiB of {wanted}" for name, (used, wanted) in sorted(usage.items())), sep="\n")


def _usage(shop: Release) -> dict[str, tuple[int, int]]:
    """MiB used and requested, by pod and container; nothing while a measurement is missing."""
    table = shop.namespace.kubectl("top", "pods", "--containers", "--no-headers", "--selector", shop.selector())
    used = {(pod, name): int(memory.removesuffix("Mi")) for pod, name, _, memory in map(str.split, table.splitlines())}
    found = {}
    for pod in shop.namespace.get("pods", shop.selector()):
        if pod["status"]["phase"] == "Running":
            for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
                key = (pod["metadata"]["name"], container["name"])
                if key not in used:
                    return {}
                wanted = int(container["resources"]["requests"]["memory"].removesuffix("Mi"))
                found["/".join(key)] = (used[key], wanted)
    return found


def test_commands_of_the_notes_work(shop: Release) -> None:
    """All of them, in order; only the local port is another, which may be taken on this machine."""
    lines = [line.strip() for line in shop.notes().splitlines() if line.startswith("    ")]
    [forward] = [line for line in lines if " port-forward " in line]
    before, after = lines[: lines.index(forward)], lines[lines.index(forward) + 1 :]
    paste("\n".join(before))
    port = free_ports(1)[0]
    with subprocess.Popen(["bash", "-c", f"exec {forward.replace('8080:', f'{port}:')}"]) as forwarding:
        try:
            eventually(lambda: _answers(port), 20, "the forwarded port answers")
            said = paste("\n".join(after).replace("localhost:8080", f"localhost:{port}"))
        finally:
            forwarding.terminate()
    assert '"products":[' in said
    assert said.count('"status":"RECEIVED"') == 1
    assert "event: completed" in said
    assert "shop.order.v1.OrderService" in said


def test_order_of_the_readme_works_through_port_forward(shop: Release) -> None:
    """What README shows for one machine is the same on a cluster, but for the services' own ports."""
    readme = (tools.ROOT / "README.md").read_text()
    blocks = [each for each in re.findall(r"(?s)```sh\n(.*?)```", readme) if "localhost:8080" in each]
    commands = re.sub(r"(?m)^.*localhost:5005\d.*\n", "", "\n".join(blocks))
    with shop.namespace.forward(f"service/{shop.component('gateway')}", 8080) as port:
        said = paste(commands.replace("localhost:8080", f"localhost:{port}"))
    assert '"name":"Oak step stool"' in said
    statuses = re.findall(r'^data: .*"status":"([A-Z]+)"', said, re.MULTILINE)
    assert statuses == ["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"]
    assert "event: completed" in said
    assert "shop.product.v1.ProductService" in said
    assert "rpc StreamOrderStatus" in said
    assert '"status": "SERVING"' in said


def paste(commands: str) -> str:
    """What a shell prints; fails at the first command that does."""
    path = f"{Path(tools.helm()).parent}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PATH": path},
        cwd=tools.ROOT,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.HTTPError:
        return False
