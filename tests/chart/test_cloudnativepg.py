"""The commands of docs/cloudnativepg.md fit together, in the order of the page. They run without a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import tools
from tests.support import restore_drill


class Shell:
    """Runs commands with stand-ins for helm and kubectl."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state"
        self._work = folder / "work"
        programs = folder / "bin"
        for each in (self._state, self._work, programs):
            each.mkdir()
        for name in ("k8s", "helm"):
            (self._work / name).symlink_to(tools.ROOT / name)
        for name in ("helm", "kubectl"):
            (programs / name).write_text(
                f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("cnpg_tools.py")} {name} "$@"\n'
            )
            (programs / name).chmod(0o755)
        self._env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "STATE": str(self._state)}

    def run(self, commands: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            check=False,
            capture_output=True,
            text=True,
            env=self._env,
            cwd=self._work,
        )
        assert done.returncode == 0, commands + done.stdout + done.stderr

    @property
    def values(self) -> dict[str, Any]:
        """The values of the release."""
        values: dict[str, Any] = yaml.safe_load((self._state / "values.yaml").read_text())
        return values

    @property
    def objects(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What was applied, by kind and name."""
        found = map(json.loads, (self._state / "objects.jsonl").read_text().splitlines())
        return {(each["kind"], each["metadata"]["name"]): each["spec"] for each in found if "spec" in each}

    @property
    def commands(self) -> list[str]:
        """What kubectl was asked to do."""
        return (self._state / "commands.txt").read_text().splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """All commands before the drill have run."""
    shell = Shell(tmp_path)
    for each in restore_drill.before_drill():
        shell.run(each)
    return shell


def addresses(cluster: str, *, replicas: bool) -> dict[str, Any]:
    """Returns the values of a database."""
    return {
        "existingSecret": f"{cluster}-app",
        "sslmode": "verify-full",
        "ca": {"secretName": f"{cluster}-ca"},
        "to": [{"podSelector": {"matchLabels": {"cnpg.io/cluster": cluster}}}],
        "pooler": {"host": f"{cluster}-pooler-rw"},
    } | ({"readOnly": {"host": f"{cluster}-ro"}} if replicas else {})


def test_later_commands_keep_what_earlier_ones_set(shell: Shell) -> None:
    assert shell.values == {
        "product": {"database": addresses("product-db", replicas=True)},
        "order": {"database": addresses("order-db", replicas=False)},
    }
    poolers = {name for kind, name in shell.objects if kind == "Pooler"}
    assert poolers == {"product-db-pooler-rw", "order-db-pooler-rw"}


@pytest.mark.parametrize("service", ["order", "product"])
def test_restored_database_has_all_that_the_old_one_had(shell: Shell, tmp_path: Path, service: str) -> None:
    """Once more, too: the second restore begins with the Cluster of the first."""
    drill = restore_drill.steps()
    names = drill["names"] if service == "order" else restore_drill.names_of_catalogue()
    restored, again = f"{service}-db-restored", f"{service}-db-restored-2"
    assert names == f"DATABASE={service} OLD={service}-db NEW={restored}\n"
    other = {"order": "product", "product": "order"}[service]
    untouched = shell.values[other]
    for old, new in ((f"{service}-db", restored), (restored, again)):
        begin = len(shell.commands)
        for step, commands in drill.items():
            if step == "names" or (step == "numbers" and service == "product"):
                continue
            shell.run(f"DATABASE={service} OLD={old} NEW={new}\n{commands}")
            if step == "switch":  # a second attempt changes nothing
                shell.run(f"DATABASE={service} OLD={old} NEW={new}\n{commands}")
        assert shell.values[service] == {"database": addresses(new, replicas=service == "product")}
        assert shell.values[other] == untouched
        objects = shell.objects
        assert objects["Cluster", new]["certificates"]["serverAltDNSNames"] == [f"{new}-pooler-rw"]
        assert objects["Cluster", new]["bootstrap"]["initdb"] == {"database": service, "owner": service}
        assert objects["Pooler", f"{new}-pooler-rw"]["cluster"]["name"] == new
        assert objects["ScheduledBackup", new]["cluster"]["name"] == new
        assert objects["NetworkPolicy", new]["podSelector"]["matchLabels"] == {"cnpg.io/cluster": new}
        done = shell.commands[begin:]
        assert any(f"patch cluster {new} " in each for each in done)
        deleted = {name for each in done if " delete " in each for name in each.split()[3:]}
        assert deleted == {"cluster", old, "--ignore-not-found"} | {
            f"scheduledbackup/{old}",
            f"pooler/{old}-pooler-rw",
            f"networkpolicy/{old}",
        }
        for each in done:  # dumps, closes and loads the right ones
            if " exec " in each and "deployment/" not in each:
                is_new = "pg_restore" in each or "setval" in each
                assert f"exec {'--stdin ' if 'pg_restore' in each else ''}pod/{new if is_new else old}-1 " in each
                assert other not in each
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(shell.values))
    assert tools.objects("--values", str(tmp_path / "values.yaml"))
