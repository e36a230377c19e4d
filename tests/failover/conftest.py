"""The shop on CloudNativePG under a steady load, and the table that the suite ends with.

`make test-cluster-cnpg`, with KUBECONFIG as kubectl takes it and IMAGE as for `make test-cluster`. The cluster needs
the CloudNativePG operator: without it the tests are skipped, or fail if REQUIRE_CNPG is set.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest

from local.settings import REPOSITORY
from tests.failover.row import Row
from tests.failover.world import World, world_on
from tests.support.kube import require_cluster, require_cnpg
from tests.support.release import image_of
from tests.support.summary import print_table, save

RESULT = REPOSITORY / "build" / "failover.json"

HEADINGS = (
    *("case", "attempted", "acknowledged", "lost", "doubled", "streams", "events", "missed", "repeated"),
    *("without_writes_s", "chosen_s", "promoted_s", "standby_s", "client_s", "slowest_event_s"),
)
ROW = "failover table row"


@pytest.fixture(scope="session")
def operator() -> None:
    require_cluster()
    require_cnpg()


@pytest.fixture(scope="session")
def world(operator: None) -> Iterator[World]:
    """The shop, its databases and the load."""
    with world_on(image_of("shop")) as made:
        yield made


@pytest.fixture
def add_row(record_property: Callable[[str, object], None]) -> Callable[[Row], None]:
    return lambda row: record_property(ROW, asdict(row))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    results = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [(name, value) for each in results if each.when == "call" for name, value in each.user_properties]
    rows = [Row(**value) for name, value in found if name == ROW]
    if not rows:
        return
    save(rows, RESULT)
    without_errors = [tuple(value for name, value in asdict(row).items() if name != "errors") for row in rows]
    print_table(terminalreporter, "failover", HEADINGS, without_errors)
    errors = [(row.case, each) for row in rows for each in row.errors.items()]
    lines = [
        (case, operation, " ".join(f"{code} {n}" for code, n in codes.items())) for case, (operation, codes) in errors
    ]
    print_table(terminalreporter, "responses with errors", ("case", "operation", "codes"), lines)
