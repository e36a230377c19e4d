"""The comparison's figures are those of its rounds."""

import json
from pathlib import Path

from bench.load import Load
from bench.table import Round, save, summarise, table


def round_of(rps: float, cpu: float) -> Round:
    return Round(
        load=Load(requests=100, rps=rps, p50_ms=1.0, p99_ms=2.0), cpu_s_per_1000={"product": cpu, "envoy": 0.5}
    )


FOUND = {
    "shop": [round_of(100, 1.0), round_of(400, 3.0), round_of(300, 2.0)],
    "empty": [round_of(200, 0.1), round_of(500, 0.1), round_of(300, 0.1)],
}


def test_ratios_are_medians_of_paired_rounds() -> None:
    """0.5, 0.8 and 1.0: a noisy round strikes both systems alike."""
    shop, empty = summarise("list", FOUND)
    assert (shop.ratio_to_ceiling, empty.ratio_to_ceiling) == (0.8, 1.0)


def test_figures_are_medians_of_rounds() -> None:
    shop, _ = summarise("list", FOUND)
    assert (shop.rps, shop.cpu_s_per_1000, shop.cpu_by_process) == (300, 2.5, {"product": 2.0, "envoy": 0.5})


def test_a_missing_rival_has_no_ratio() -> None:
    shop, _ = summarise("list", FOUND)
    assert shop.ratio_to_fastapi is None
    assert "–" in table([shop])


def test_results_are_saved_as_objects(tmp_path: Path) -> None:
    save(summarise("list", FOUND), tmp_path / "build" / "bench.json")
    (first, _) = json.loads((tmp_path / "build" / "bench.json").read_text())
    wanted = {"case", "system", "rps", "p50_ms", "p99_ms", "cpu_s_per_1000", "ratio_to_ceiling", "ratio_to_fastapi"}
    assert wanted <= first.keys()
