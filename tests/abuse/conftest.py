"""The shop that is abused, and the table that the tests end with."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pytest

from local.settings import REPOSITORY
from tests.abuse.shop import AbuseShop, abuse_shop

RESULT = REPOSITORY / "build" / "abuse.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attack. Memory is the most that a process has had, in MiB."""

    attack: str
    connections: int
    envoy_mib: int
    sse_mib: int
    order_mib: int
    product_mib: int
    calls: int
    errors: int
    p50_ms: float
    p99_ms: float


ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def abused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AbuseShop]:
    with abuse_shop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


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
    lines = [tuple(asdict(rows[0])), *(tuple(str(value) for value in asdict(row).values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    terminalreporter.section("abuse")
    for first, *others in lines:
        numbers = "  ".join(value.rjust(width) for value, width in zip(others, widths[1:], strict=True))
        terminalreporter.write_line(f"{first.ljust(widths[0])}  {numbers}")
