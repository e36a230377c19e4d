"""The benchmark of telemetry compares rounds of the same number."""

from bench.load import Load
from bench.table import Round
from bench.telemetry import BASELINE, DEFAULT, PARTS, summarise, table

REQUEST = "GET a product"


def rounds(*figures: tuple[float, float]) -> list[Round]:
    """Rounds with these requests per second and CPU seconds of each process."""
    return [Round(Load(1_000, rps, 1.0, 2.0), dict.fromkeys(PARTS, cpu)) for rps, cpu in figures]


def test_ratios_compare_the_same_round() -> None:
    """A machine that is busy in one round makes both shops slow."""
    found = {
        (REQUEST, BASELINE): rounds((1_000, 0.1), (100, 1.0), (1_000, 0.1)),
        (REQUEST, DEFAULT): rounds((980, 0.11), (98, 1.1), (980, 0.11)),
    }
    without, observed = summarise(found)
    assert (without.rps_ratio, without.cpu_ratio) == (1, 1)
    assert (observed.rps_ratio, observed.cpu_ratio) == (0.98, 1.1)
    assert observed.rps == 980


def test_table_has_each_shop() -> None:
    found = {(REQUEST, BASELINE): rounds((1_000, 0.1)), (REQUEST, DEFAULT): rounds((980, 0.11))}
    lines = table(summarise(found)).splitlines()
    assert len(lines) == 4
    assert DEFAULT in lines[3]
    assert "0.98" in lines[3]
