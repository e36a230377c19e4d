"""What a shop costs, and how far it grows: `python -m bench scaling`, or `make bench CASE=scaling`.

`costs` measures, and writes what it found to `build/costs.json`. The other parts compute from the last file, or from
`bench/costs.json`, which has the figures of the documentation: `check` compares the simulation with measured loads,
`predict` simulates rates that one machine cannot make, `sizes` multiplies.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import costs as costs_module
from bench import scaling_check, scaling_predictions, sizes
from bench.costs import MEASURED, PROCESSES, Costs
from bench.load import installed
from bench.order_model import Parameters
from bench.report import check, write
from bench.table import markdown
from local.settings import REPOSITORY

RESULT = REPOSITORY / "build" / "costs.json"

ROUNDS, SECONDS = 3, 2
POINT_SECONDS = 6

COMMAND = "make bench CASE=scaling"


def _heading(costs: Costs, part: str) -> str:
    conditions = costs.conditions
    return (
        f"`{COMMAND}`{part}; costs of {conditions['date']}, on {conditions['machine']}, load average"
        f" {conditions['load_average']:g} before."
    )


def table_of_requests(costs: Costs) -> str:
    """Returns the costs of requests as a table."""
    head = (
        *("request", "connections", "requests/s", "p50 ms", "CPU s per 1,000", *PROCESSES[:-1]),
        *("transactions: order", "product", "flushes: order", "product", "WAL KiB: order", "product", "stored KiB"),
    )
    rows = []
    for name, each in costs.requests.items():
        cells = [
            *(name.rpartition(" × ")[0], str(each.connections), f"{each.rps:,.0f}", f"{each.p50_ms:.1f}"),
            *(f"{each.shop_cpu_s:.2f}", *(f"{each.cpu_s[part]:.2f}" for part in PROCESSES[:-1])),
        ]
        if each.written:
            order, product = each.written["order"], each.written["product"]
            cells += [f"{side[kind] / 1000:.2f}" for kind in ("transactions", "flushes") for side in (order, product)]
            cells += [f"{side['wal_bytes'] / 1000 / 1024:.1f}" for side in (order, product)]
            cells.append(f"{(order['size'] + product['size']) / 1000 / 1024:.1f}")
        else:
            cells += ["–"] * 7
        rows.append(cells)
    return markdown(head, rows)


def _requests(costs: Costs, parameters: Parameters, cores: int) -> str:
    conditions = costs.conditions
    watchers, tailing = costs.watchers, costs.tailing
    memory = ", ".join(f"{name} {watchers[f'kib_{name}']:g} KiB" for name in ("order", "sse", "envoy"))
    idle, idle_envoy = watchers["idle_cores_per_1000"], watchers["idle_cores_per_1000_envoy"]
    others = markdown(
        ("what", "cost"),
        [
            ("memory of a watcher", memory),
            (
                "1,000 changes of orders, with their events",
                f"order and sse {watchers['cpu_s_per_1000_events']:g} CPU s",
            ),
            ("1,000 watchers without events", f"order and sse {idle:g} cores, envoy {idle_envoy:g}"),
            (
                "1,000 events that the tailer of one order process reads",
                f"order {tailing.order_per_event:g} CPU s, order-db {tailing.database_per_event:g}",
            ),
            (
                "1,000 reads by a tailer, of one event each",
                f"order {tailing.order_per_read:g} CPU s, order-db {tailing.database_per_read:g}",
            ),
        ],
    )
    return (
        f"{_heading(costs, '')} Medians of {conditions['rounds']} rounds of {conditions['seconds']} s."
        f"\n\n{table_of_requests(costs)}\n\n{others}"
    )


def _check(costs: Costs, parameters: Parameters, cores: int) -> str:
    text, worst = scaling_check.compare(costs, parameters, cores)
    errors = ", ".join(f"{name} {value:.0%}" for name, value in worst.items())
    return f"{_heading(costs, '')} The largest errors: {errors}.\n\n{text}"


def _predict(costs: Costs, parameters: Parameters, cores: int) -> str:
    return f"{_heading(costs, '')}\n\n{scaling_predictions.text(parameters)}"


def _sizes(costs: Costs, parameters: Parameters, cores: int) -> str:
    return f"{_heading(costs, '')}\n\n{sizes.text(costs)}"


PARTS: Mapping[str, Callable[[Costs, Parameters, int], str]] = {
    "costs": _requests,
    "check": _check,
    "predict": _predict,
    "sizes": _sizes,
}
"""Each returns the text for its place in the documentation, which has its name with `scaling-` before it."""


def scaling(names: Sequence[str], write_to: Path | None = None, *, quick: bool = False) -> int:
    """Runs the parts of these names, or all. Returns the exit status.

    With `write_to`, measured costs become those of the documentation. `quick` measures for too short a time for that.
    """
    names = names or tuple(PARTS)
    if write_to:
        for name in names:
            check(write_to, f"scaling-{name}")
    if "costs" in names:
        installed()
        seconds = 1 if quick else POINT_SECONDS
        found = costs_module.measure(
            lambda bench, requests: scaling_check.measure_points(bench, requests, seconds),
            rounds=1 if quick else ROUNDS,
            seconds=1 if quick else SECONDS,
        )
        found["cores"] = os.cpu_count()
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
        if write_to:
            shutil.copy(RESULT, MEASURED)
    source = RESULT if RESULT.exists() and not write_to else MEASURED
    costs = costs_module.load(source)
    print(f"costs: {source}", file=sys.stderr)
    cores = int(costs.conditions["cores"])
    parameters = scaling_check.calibrate(costs, cores)
    for name in names:
        text = PARTS[name](costs, parameters, cores)
        print(text + "\n")
        if write_to:
            write(write_to, f"scaling-{name}", text)
    return 0
