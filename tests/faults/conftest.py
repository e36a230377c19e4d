"""The two servers of the fault tests, and the table that they end with."""

from collections.abc import Iterator

import pytest

from local.settings import REPOSITORY
from tests.faults.check import Row
from tests.faults.shop import Servers
from tests.support.summary import report

RESULT = REPOSITORY / "build" / "faults.json"

HEADINGS = ("fault", "attempted", "acknowledged", "lost", "oversold", "doubled", "leaked", "recovery_s")

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One PostgreSQL for each service, for the whole run. What they acknowledge is on the disk."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The rows of the table so far."""
    found: list[Row] = request.config.stash.setdefault(ROWS, [])
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    report(terminalreporter, "faults", HEADINGS, rows, RESULT)
