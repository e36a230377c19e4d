"""The dashboards show what there is, in expressions that Prometheus accepts."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.tools import ROOT
from tests.monitoring import rules

DASHBOARDS = sorted(rules.FOLDER.glob("*.json"))


def panels(dashboard: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def test_dashboards_are_those_that_the_generator_writes() -> None:
    done = subprocess.run([sys.executable, "-m", "helm.dashboards", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_each_panel_explains_itself(dashboard: Path) -> None:
    for panel in panels(dashboard):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
    assert set(Counter(panel["id"] for panel in panels(dashboard)).values()) == {1}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap(dashboard: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (column, line)
            for column in range(place.get("x", 0), place.get("x", 0) + place["w"])
            for line in range(place.get("y", 0), place.get("y", 0) + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place.get("x", 0) + place["w"] <= 24, panel["title"]
        taken |= cells


def test_prometheus_accepts_each_expression(tmp_path: Path) -> None:
    expressions = [target["expr"] for path in DASHBOARDS for panel in panels(path) for target in panel["targets"]]
    own = '{namespace="$namespace",app_kubernetes_io_instance="$release"'
    assert all(each.count("{") == each.count(own) for each in expressions), "an expression shows other releases, too"
    records = [
        {"record": f"panel:{number}", "expr": each.replace("$__rate_interval", "5m")}
        for number, each in enumerate(expressions)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    done = rules.run("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
