"""The chart's rules and dashboards, and what promtool makes of them."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.chart import tools
from tests.monitoring.series import STEP, Series

FOLDER = tools.CHART / "files" / "monitoring"
ALERTS = FOLDER / "alerts.yaml"

SELECTOR = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\{")


@cache
def rules() -> list[dict[str, Any]]:
    """All rules of the file, in their order."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerts among them."""
    return [rule for rule in rules() if "alert" in rule]


def metrics(expression: str) -> set[str]:
    """The metrics that a PromQL expression selects. Ours always have a matcher; `shop:…` are recorded by our rules."""
    return {name for name in SELECTOR.findall(expression) if ":" not in name}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs promtool."""
    command = [tools.require(tools.promtool), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def check_firing(
    series: Series, expected: Iterable[str], folder: Path, *, last: str = "45m", rules_file: Path = ALERTS
) -> str:
    """Checks which alerts fire in the time of the samples.

    Args:
        series: The samples.
        expected: The names of the alerts, no others.
        folder: Gets a file for promtool.
        last: How much of the end of the samples counts.
        rules_file: The rules.

    Returns:
        What differs, or an empty string.
    """
    firing = f'group by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{last}]))'
    samples = {f'{{alertname="{name}"}}': 1 for name in sorted(expected)}
    return check_query(firing, samples, series, folder, "45m", rules_file)


def check_query(
    query: str, expected: Mapping[str, float], series: Series, folder: Path, time: str, rules_file: Path = ALERTS
) -> str:
    """Checks what a query returns.

    Args:
        query: The query.
        expected: The values that it should return, by their labels.
        series: The samples.
        folder: Gets a file for promtool.
        time: When it is asked, as in `45m`.
        rules_file: The rules.

    Returns:
        What differs, or an empty string.
    """
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    case = {
        "interval": f"{STEP}s",
        "input_series": series.input(),
        "promql_expr_test": [{"expr": query, "eval_time": time, "exp_samples": samples}],
    }
    file = folder / "case.json"  # JSON is YAML, and is written faster
    file.write_text(json.dumps({"rule_files": [str(rules_file)], "evaluation_interval": "1m", "tests": [case]}))
    done = run("test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr
