"""The two servers of the fault tests, and the tables that they end with."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from local.settings import REPOSITORY
from tests.chart.tools import build_promtool
from tests.faults.alert_table import AlertRow, CheckAlerts, alert_checker
from tests.faults.check import Row
from tests.faults.shop import Servers
from tests.support.summary import report

RESULT = REPOSITORY / "build" / "faults.json"
ALERTS_RESULT = REPOSITORY / "build" / "alerts.json"

HEADINGS = ("fault", "attempted", "acknowledged", "carts", "lost", "oversold", "doubled", "leaked", "recovery_s")
ALERT_HEADINGS = ("fault", "alert", "minutes")

ROW = "fault table row"
ALERT_ROW = "alert table row"


def pytest_configure() -> None:
    build_promtool()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One PostgreSQL for each service, for each process of pytest. What they acknowledge is on the disk."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def add_row(record_property: Callable[[str, object], None]) -> Callable[[Row], None]:
    """Adds a row to the table. It goes with the test's result, since the test may run in a process of its own."""
    return lambda row: record_property(ROW, asdict(row))


@pytest.fixture
def check_alerts(record_property: Callable[[str, object], None], tmp_path: Path) -> CheckAlerts:
    """Fails unless a fault has fired the alerts that it should and no other. Adds a row to the table of alerts."""
    return alert_checker(tmp_path / "alerts", lambda row: record_property(ALERT_ROW, asdict(row)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    results = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [(name, value) for each in results if each.when == "call" for name, value in each.user_properties]
    report(terminalreporter, "faults", HEADINGS, [Row(**value) for name, value in found if name == ROW], RESULT)
    alerts = [AlertRow(**value) for name, value in found if name == ALERT_ROW]
    report(terminalreporter, "alerts", ALERT_HEADINGS, alerts, ALERTS_RESULT)
