"""The restore drill of docs/cloudnativepg.md, with its commands as they stand there."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.chart import tools
from tests.support import restore_drill
from tests.support.buyer import client
from tests.support.kube import Namespace, require_cnpg
from tests.support.release import Release
from tests.support.rest import Rest

STOCK = 100
BEFORE = 12
"""Orders that are in the backup."""
AFTER = 3
"""Orders that are placed after it, and lost."""


class Shell:
    """Runs commands for the namespace `shop` in another namespace, and in a folder of their own."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace.name
        self._folder = folder
        self._names = restore_drill.steps()["names"]
        for name in ("k8s", "helm"):
            (folder / name).symlink_to(tools.ROOT / name)

    def run(self, commands: str) -> str:
        """Returns what the commands print. Fails at the first one that fails."""
        script = (self._names + commands).replace("--namespace shop", f"--namespace {self._namespace}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            check=False,
            capture_output=True,
            text=True,
            timeout=400,
            env={**os.environ, "PATH": f"{Path(tools.helm()).parent}:{os.environ['PATH']}"},
            cwd=self._folder,
        )
        assert done.returncode == 0, commands + done.stdout + done.stderr
        return done.stdout


def small(manifest: str, instances: int) -> dict[str, Any]:
    """Returns a Cluster with so many instances. A single one waits for no standby."""
    cluster: dict[str, Any] = yaml.safe_load((tools.ROOT / "k8s" / "cnpg" / manifest).read_text())
    cluster["spec"]["instances"] = instances
    if instances == 1:
        del cluster["spec"]["postgresql"]["synchronous"]
    return cluster


async def statuses(http: httpx.AsyncClient, order_id: str) -> list[str]:
    """Returns the statuses that a stream shows first."""
    found = []
    async with http.stream("GET", f"/api/orders/stream?order_id={order_id}") as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if match := re.search(r'"status":"([A-Z]+)"', line):
                found.append(match[1])
            if len(found) == 2:
                break
    return found


@pytest.mark.timeout(1200, func_only=True)
async def test_restore_drill_of_the_docs(own: Namespace, image: str, tmp_path: Path) -> None:
    """The orders of the backup are there, the stock of the others is free again, and the shop goes on."""
    require_cnpg()
    own.apply(small("product-db.yaml", 1), small("order-db.yaml", 2))
    release = Release(own, image, values={"demo.enabled": "false"})
    release.install("--values", str(tools.ROOT / "k8s" / "cnpg" / "values-cnpg.yaml"))
    own.kubectl(
        "wait", "--for=condition=Ready", "cluster/product-db", "cluster/order-db", "--timeout=300s", timeout=310
    )
    release.until_ready(180)
    shell, drill = Shell(own, tmp_path), restore_drill.steps()
    async with client(release) as http:
        rest = Rest(http)
        product = (await rest.product(stock=STOCK))["id"]
        kept = [(await rest.order(product))["id"] for _ in range(BEFORE)]
        shell.run(drill["back up"])
        lost = [(await rest.order(product))["id"] for _ in range(AFTER)]
        assert await rest.stock(product) == STOCK - BEFORE - AFTER
    for step in ("make", "load", "numbers"):
        shell.run(drill[step])
    shell.run(drill["close"])
    shell.run(drill["switch"])
    reconciled = shell.run(drill["reconcile"])
    for order_id in lost:
        assert order_id in reconciled
    assert all(each not in reconciled for each in kept)
    shell.run(drill["delete"])
    async with client(release) as http:
        rest = Rest(http)
        codes = {each: (await http.get(f"/api/v1/orders/{each}")).status_code for each in kept + lost}
        assert codes == dict.fromkeys(kept, 200) | dict.fromkeys(lost, 404)
        assert await rest.stock(product) == STOCK - BEFORE
        new = await rest.order(product)
        assert int(new["number"].rpartition("-")[2]) > 100_000
        # The events of a dump have transaction ids of another server.
        assert (await http.post(f"/api/v1/orders/{kept[0]}:process", json={})).status_code == 200
        assert await statuses(http, kept[0]) == ["PLACED", "PROCESSED"]
    again = shell.run(drill["reconcile"].replace(" || true", ""))
    assert not re.search(r"(?m)^order ", again), again
