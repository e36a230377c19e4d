"""The shop that is attacked, and the table that the tests end with."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import pytest

from local.settings import REPOSITORY
from tests.abuse.attack import KNOWN_KEY
from tests.abuse.shop import AbuseShop, TokenShop, running
from tests.support.oidc import new_key, oidc_provider
from tests.support.summary import report

RESULT = REPOSITORY / "build" / "abuse.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attack. Memory is the most that a process had, in MiB."""

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
    """One shop for all attacks."""
    with running(AbuseShop(tmp_path_factory.mktemp("shop"))) as shop:
        yield shop


@pytest.fixture(scope="module")
def token_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenShop]:
    """A shop with AUTH_MODE=jwt, and the issuer of its tokens."""
    with oidc_provider() as provider:
        provider.keys = [new_key(kid=KNOWN_KEY)]
        with running(TokenShop(tmp_path_factory.mktemp("shop"), provider)) as shop:
            yield shop


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The rows of the table so far."""
    found: list[Row] = request.config.stash.setdefault(ROWS, [])
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    report(terminalreporter, "abuse", [field.name for field in fields(Row)], rows, RESULT)
