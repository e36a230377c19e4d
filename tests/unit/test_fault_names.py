"""The fault tests, which `make test` does not run, name methods and constants of production code by text."""

from pathlib import Path

import pytest

from tests.faults import test_alerts, test_faults, test_restore, test_searches
from tests.faults.alert_table import table_line
from tests.faults.process import POINTS, crash, setting
from tests.monitoring import rules

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"

ALERTS: dict[str, tuple[str, ...]] = {
    **{each.fault: each.alerts for each in (*test_faults.SCENARIOS, *test_restore.RESTORES.values())},
    test_searches.FAULT: test_searches.ALERTS,
    **{each.fault: each.alerts for each in test_alerts.SCENARIOS},
}
"""The alerts that each fault fires."""


def test_every_fault_point_exists() -> None:
    for point in POINTS:
        crash(point, after=1, together=1)


def test_every_scenario_has_an_own_name() -> None:
    """To import the scenarios checks the points and constants that they name."""
    scenarios = (test_faults.SCENARIOS, test_restore.RESTORES, test_alerts.SCENARIOS)
    assert len(ALERTS) == sum(map(len, scenarios)) + 1


def test_every_alert_has_a_fault_that_fires_it_alone() -> None:
    alone = {alerts[0] for alerts in ALERTS.values() if len(alerts) == 1}
    assert alone == {rule["alert"] for rule in rules.alerts()}


def test_documented_alerts_are_those_of_the_faults() -> None:
    """`make test-faults` prints the table, with the minutes that it took."""
    section = OPERATIONS.read_text().partition("### Alerts that faults fire\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ")][2:]
    assert [f"|{'|'.join(row)}|" for row in rows] == [table_line(fault, alerts) for fault, alerts in ALERTS.items()]


def test_unknown_constant_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"the module order\.stock has no constant HOLD_MINUTES"):
        setting("order.stock.HOLD_MINUTES", 1)
