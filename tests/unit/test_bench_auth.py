"""The benchmark of tokens compares what differs in nothing but the token."""

from bench.auth import CASES, ORDER, PRODUCT, TOKEN, Case, summarise, table
from bench.load import Load
from bench.table import Round


def rounds(case: Case, *cpu: float) -> list[Round]:
    load = Load(requests=100, rps=100, p50_ms=1.0, p99_ms=2.0)
    return [Round(load, {"envoy": each / 2, case.service: each / 2, "postgres": 0.0}) for each in cpu]


def test_ratios_compare_rounds_of_the_same_number() -> None:
    """A noisy round strikes all callers alike."""
    found = {case: rounds(case, *((1.1, 2.2, 3.3) if case.caller == TOKEN else (1.0, 2.0, 3.0))) for case in CASES}
    ratios = {(each.request, each.caller): each.ratio for each in summarise(found)}
    assert ratios[PRODUCT, TOKEN] == ratios[ORDER, TOKEN] == 1.1
    assert [ratio for (_, caller), ratio in ratios.items() if caller != TOKEN] == [1.0] * 3
    assert "1.10" in table(summarise(found))


def test_each_case_has_a_baseline_for_the_same_request() -> None:
    callers = {(case.request, case.caller) for case in CASES}
    assert all((case.request, case.baseline) in callers for case in CASES)
