"""The shop of the races, and the table that they end with."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from local.settings import REPOSITORY
from tests.races.check import Row
from tests.support.database import DatabaseServer
from tests.support.oidc import Provider, oidc_provider
from tests.support.summary import report

RESULT = REPOSITORY / "build" / "races.json"

HEADINGS = ("pair", "calls", "lost", "free", "doubled", "oversold")

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture(scope="module")
def databases(postgres: DatabaseServer) -> Iterator[dict[str, str]]:
    """A database for each service."""
    with ExitStack() as stack:
        yield {service: stack.enter_context(postgres.database(service)) for service in ("product", "order")}


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The rows of the table so far."""
    found: list[Row] = request.config.stash.setdefault(ROWS, [])
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    report(terminalreporter, "races", HEADINGS, rows, RESULT)
