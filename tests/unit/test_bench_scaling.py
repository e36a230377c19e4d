"""The costs of the documentation are complete, and what is computed from them adds up."""

import pytest

from bench import costs as costs_module
from bench import sizes
from bench.costs import LIGHT, Costs, key
from bench.order_model import Cost
from bench.scaling import table_of_requests
from bench.scaling_check import error, fit
from bench.scaling_predictions import topology_for
from tests.unit.test_order_model import PARAMETERS


@pytest.fixture(scope="module")
def costs() -> Costs:
    return costs_module.load()


def test_a_fit_finds_the_costs_of_calls_and_statements() -> None:
    points = [(statements, 0.3 + 0.2 * statements) for statements in (3000 / 1000, 0.9, 0.1)]
    found = fit(points)
    assert found.call == pytest.approx(0.0003)
    assert found.batch == pytest.approx(0.2)


@pytest.mark.parametrize("points", [[(3.0, 0.1), (1.0, 0.2), (0.1, 0.3)], [(3.0, 3.0), (0.3, 0.1)]])
def test_a_fit_has_no_negative_costs(points: list[tuple[float, float]]) -> None:
    found = fit(points)
    assert min(found.call, found.batch) >= 0 < max(found.call, found.batch)


def test_a_process_without_cost_is_fitted() -> None:
    assert fit([(1.0, 0.0)]) == Cost(0.0, 0.0)


def test_an_error_is_relative_to_what_was_measured() -> None:
    assert [error(110, 100), error(90, 100), error(1, 0)] == pytest.approx([0.1, -0.1, 0.0])


def test_the_costs_are_of_several_rounds_on_a_quiet_machine(costs: Costs) -> None:
    """Figures of a busy machine were on the page once, and the simulation was wrong by 199 %."""
    assert costs.conditions["rounds"] >= 3
    assert costs.conditions["load_average"] < costs.conditions["cores"]


def test_each_request_of_the_mix_was_measured(costs: Costs) -> None:
    assert {key(name, LIGHT) for name in sizes.MIX} <= set(costs.requests)


def test_the_table_has_a_row_for_each_request(costs: Costs) -> None:
    lines = table_of_requests(costs).splitlines()
    assert len(lines) == 2 + len(costs.requests)
    assert len({line.count("|") for line in lines}) == 1


def test_sizes_grow_with_the_rate(costs: Costs) -> None:
    small, large = sizes.size(costs, 10), sizes.size(costs, 100)
    assert small
    assert large
    assert large.commits == pytest.approx(10 * small.commits)
    assert large.order_pods >= small.order_pods
    assert large.order_connections == large.order_pods * sizes.ORDER_CONNECTIONS


def test_no_size_fits_where_one_log_is_too_much(costs: Costs) -> None:
    assert sizes.size(costs, 1_000_000) is None


def test_pods_for_a_rate_are_below_their_target() -> None:
    small, large = topology_for(100, PARAMETERS), topology_for(10_000, PARAMETERS)
    assert (small.gateways, small.orders, small.products) == (1, 1, 1)
    assert (large.gateways, large.orders, large.products) == (3, 9, 4)
