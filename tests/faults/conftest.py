"""The two servers of the fault tests, and the table that they end with."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from local.settings import REPOSITORY
from tests.faults.check import Row
from tests.faults.shop import Servers

RESULT = REPOSITORY / "build" / "faults.json"

HEADINGS = ("fault", "attempted", "acknowledged", "lost", "oversold", "doubled", "leaked", "recovery_s")

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One PostgreSQL for each service, for the whole run; what they acknowledge is on the disk."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The lines of the table so far."""
    found: list[Row] = request.config.stash.setdefault(ROWS, [])
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    lines = [HEADINGS, *(tuple(str(value) for value in asdict(row).values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    terminalreporter.section("faults")
    for first, *others in lines:
        numbers = "  ".join(value.rjust(width) for value, width in zip(others, widths[1:], strict=True))
        terminalreporter.write_line(f"{first.ljust(widths[0])}  {numbers}")
