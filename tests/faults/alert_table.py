"""The table of alerts: what each fault fires."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.chart.tools import ToolMissing, promtool
from tests.faults.alerts import fired
from tests.faults.recorder import Recording

NONE = "none"
"""Stands in the table where no alert fires."""


@dataclass(frozen=True)
class AlertRow:
    """One row of the table."""

    fault: str
    alert: str
    """The alerts that fired, or NONE."""
    minutes: str
    """How long after the fault began, by the rules' time."""


def table_line(fault: str, alerts: Iterable[str]) -> str:
    """Returns the line of the table in docs/operations.md, without the minutes."""
    return f"| {fault} | {', '.join(sorted(alerts)) or NONE} |"


class CheckAlerts(Protocol):
    """Fails unless exactly these alerts fired."""

    def __call__(
        self, fault: str, recording: Recording, alerts: Iterable[str], *, began: int = 0, stays: int = 0
    ) -> None:
        """Checks a recording, and adds a row to the table.

        Args:
            fault: The name of the fault.
            recording: What was scraped.
            alerts: The alerts that must fire.
            began: The number of the scrape before which the fault began.
            stays: Seconds of the rules' time for which all stays as it is at the end of the recording.
        """


def alert_checker(folder: Path, add_row: Callable[[AlertRow], None]) -> CheckAlerts:
    """Returns what checks recordings.

    Args:
        folder: Where the input of promtool is kept.
        add_row: Adds a row to the table.
    """

    def check(fault: str, recording: Recording, alerts: Iterable[str], *, began: int = 0, stays: int = 0) -> None:
        try:
            promtool()
        except ToolMissing:
            return  # what else the test has found stands
        found = fired(recording, folder, stays=stays)
        begin = began * recording.pace.step
        names = sorted(found.firing)
        minutes = ", ".join(f"{(found.firing[name] - begin) / 60:.0f}" for name in names) if began else ""
        add_row(AlertRow(fault, ", ".join(names) or NONE, minutes))
        assert names == sorted(alerts), f"pending: {found.pending}; began at {begin}; see {folder}"

    return check
