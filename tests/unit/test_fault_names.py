"""The fault tests, which `make test` does not run, name methods and constants of production code by text."""

import pytest

from tests.faults.process import POINTS, crash, setting
from tests.faults.test_faults import SCENARIOS


def test_every_fault_point_exists() -> None:
    for point in POINTS:
        crash(point, after=1, together=1)


def test_every_scenario_has_an_own_name() -> None:
    """To import the scenarios checks the points and constants that they name."""
    assert len({scenario.fault for scenario in SCENARIOS}) == len(SCENARIOS)


def test_unknown_constant_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"the module order\.stock has no constant HOLD_MINUTES"):
        setting("order.stock.HOLD_MINUTES", 1)
