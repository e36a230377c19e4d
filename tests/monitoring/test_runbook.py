"""The runbook has what the alerts promise."""

import re

from tests.chart.tools import ROOT
from tests.monitoring import rules

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
SECTION = re.compile(r"^### (Shop\w+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    assert sorted(name for name, _ in SECTION.findall(RUNBOOK)) == sorted(alert["alert"] for alert in rules.alerts())


def test_each_section_says_what_it_means_where_to_look_and_what_to_do() -> None:
    for name, text in SECTION.findall(RUNBOOK):
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Means", "Look", "Do"], name


def test_queries_of_the_runbook_are_promql() -> None:
    """Indented lines that begin with a function of PromQL."""
    queries = re.findall(r"^    ((?:rate|sum|topk|histogram_quantile)\b.*)$", RUNBOOK, re.MULTILINE)
    assert len(queries) > 4
    for query in queries:
        done = rules.run("promql", "--experimental", "format", query)
        assert done.returncode == 0, done.stderr
