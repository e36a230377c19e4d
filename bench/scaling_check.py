"""Compares the simulation with this machine, at loads that it was not calibrated with."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from bench.costs import BUSY, CALIBRATION, CREATE, Bench, Case, Costs, Measured, key
from bench.data import HOT, product_id
from bench.load import LoadError
from bench.order_model import PROCESSES, Cost, Load, Parameters, Prediction, Topology, simulate
from bench.scaling_shop import SERVICES
from bench.table import markdown
from local.databases import SUPERUSER

SHARES = (0.25, 0.5, 0.75, 0.9)
"""Loads as shares of what 32 connections reach without a pause."""

PACED_CONNECTIONS = 192
"""Connections that pause at random. So many make nearly as if orders came at random, however the shop does. Fewer than
may wait (DATABASE_POOL_WAITING), so that none is refused."""

SLOW_FLUSH_MS = 4
"""Milliseconds that a flush of the log takes longer on the slow disk, which PostgreSQL's `commit_delay` stands for."""

SIMULATED_SECONDS = 6.0

_DATABASE = {"envoy": "product", "order": "order", "order-db": "order", "product": "product", "product-db": "product"}
"""By whose transactions a process's cost is fitted. Orders leave for product and for Envoy in the same batches."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A load. It is measured, and simulated."""

    name: str
    connections: int
    think: float = 0.0
    hot: bool = False
    slow_disk: bool = False


def points(maximum: float) -> list[Point]:
    """Returns the loads, of which some are shares of this many orders a second."""
    paced = [
        Point(
            name=f"{share:.0%} of {maximum:,.0f} orders/s",
            connections=PACED_CONNECTIONS,
            think=PACED_CONNECTIONS / (share * maximum),
        )
        for share in SHARES
    ]
    return [
        *paced,
        Point(name="as many as 8 connections can", connections=8),
        Point(name="as many as 64 connections can", connections=64),
        Point(name="one product, 16 connections", connections=16, hot=True),
        Point(name="one product, 64 connections", connections=64, hot=True),
        Point(name="a slow disk, 64 connections", connections=64, slow_disk=True),
        Point(name="a slow disk, one product, 64 connections", connections=64, hot=True, slow_disk=True),
    ]


def measure_points(bench: Bench, requests: Sequence[Measured], seconds: int) -> list[dict[str, Any]]:
    """Measures the loads. Returns what the file of costs keeps of them."""
    maximum = next(each.rps for each in requests if each.case == key(CREATE, BUSY))
    found: list[dict[str, Any]] = []
    for point in points(maximum):
        products = [str(product_id(n)) for n in range(1, 2 if point.hot else HOT + 1)]
        case = Case("order", products, point.connections, writes=True)
        _delay_commits(bench, SLOW_FLUSH_MS * 1000 if point.slow_disk else 0)
        think = point.think or None
        try:
            bench.measure(f"{point.name}, warm-up", case, seconds=1, think=think, exact=False)
            measured = bench.measure(point.name, case, seconds=seconds, think=think, exact=False)
        except LoadError as error:
            print(f"{point.name}: left out: {error}", file=sys.stderr)
            continue
        found.append({"point": asdict(point), "measured": asdict(measured)})
    _delay_commits(bench, 0)
    return found


def _delay_commits(bench: Bench, microseconds: int) -> None:
    for service in SERVICES:
        conninfo = bench.shop.database(service).conninfo("postgres", SUPERUSER)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER SYSTEM SET commit_delay = {}").format(microseconds))
            connection.execute("ALTER SYSTEM SET commit_siblings = 0")
            connection.execute("SELECT pg_reload_conf()")
    time.sleep(0.2)  # until the connections have read it


def fit(points_: Sequence[tuple[float, float]]) -> Cost:
    """Returns the cost that fits best: CPU seconds for 1,000 orders, by the statements that they took.

    Errors count in relation to the cost. Neither part is negative.
    """
    # Least squares for y = call + batch * x, with weights 1 / y².
    rows = [(1 / y, x / y) for x, y in points_ if y]
    if not rows:
        return Cost(0.0, 0.0)
    aa, ab, bb = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = sum(r[0] for r in rows), sum(r[1] for r in rows)
    determinant = aa * bb - ab * ab
    call = (a * bb - b * ab) / determinant if determinant > 1e-9 * aa * bb else a / aa
    batch = (b * aa - a * ab) / determinant if determinant > 1e-9 * aa * bb else 0.0
    if batch < 0:
        call, batch = a / aa, 0.0
    if call < 0:
        call, batch = 0.0, b / bb
    return Cost(call / 1000, batch)


def calibrate(costs: Costs, cores: int) -> Parameters:
    """Returns the simulation's parameters: from CreateOrder at the connections of CALIBRATION."""
    measured = [costs.requests[key(CREATE, n)] for n in CALIBRATION]
    fitted = {
        process: fit(
            [
                (each.written[_DATABASE[process]]["transactions"] if process in _DATABASE else 0.0, each.cpu_s[process])
                for each in measured
            ]
        )
        for process in PROCESSES
    }
    # Cost.batch is for one statement: CPU seconds of 1,000 orders, divided by the statements of 1,000 orders.
    flush = {
        f"{service}-db": sum(each.written[service]["flush_s"] for each in measured)
        / max(sum(each.written[service]["flushes"] for each in measured), 1e-9)
        for service in SERVICES
    }
    parameters = Parameters(costs=fitted, flush=flush)
    alone = simulate(parameters, Topology(shared_cores=cores), Load(connections=1), seconds=SIMULATED_SECONDS)
    wait = max(0.0, measured[0].p50_ms - alone.p50_ms) / 1000
    return replace(parameters, wait=wait)


def predict(point: Point, parameters: Parameters, cores: int) -> Prediction:
    """Simulates a load on one machine."""
    if point.slow_disk:
        extra = SLOW_FLUSH_MS / 1000
        parameters = replace(parameters, flush={name: each + extra for name, each in parameters.flush.items()})
    topology = Topology(shared_cores=cores, hot_share=float(point.hot))
    load = Load(connections=point.connections, think=point.think)
    return simulate(parameters, topology, load, seconds=SIMULATED_SECONDS)


def error(predicted: float, measured: float) -> float:
    """Returns the error of a prediction, as a share of what was measured."""
    return predicted / measured - 1 if measured else 0.0


def compare(costs: Costs, parameters: Parameters, cores: int) -> tuple[str, Mapping[str, float]]:
    """Returns a table of the loads, and the largest error of each figure, without its sign."""
    rows: list[tuple[str, ...]] = []
    worst: dict[str, float] = {}
    for each in costs.points:
        point, measured = Point(**each["point"]), Measured(**each["measured"])
        found = predict(point, parameters, cores)
        figures = {
            "orders/s": (measured.rps, found.rate, ",.0f"),
            "CPU s per 1,000": (
                measured.shop_cpu_s,
                sum(s for name, s in found.cpu_s.items() if name != "client"),
                ".2f",
            ),
            "transactions of order": (
                measured.written["order"]["transactions"] / 1000,
                found.statements,
                ".2f",
            ),
            "p50 ms": (measured.p50_ms, found.p50_ms, ".1f"),
            "p99 ms": (measured.p99_ms, found.p99_ms, ".1f"),
        }
        cells = []
        for name, (real, simulated, how) in figures.items():
            off = error(simulated, real)
            worst[name] = max(worst.get(name, 0.0), abs(off))
            cells.append(f"{real:{how}} → {simulated:{how}} ({off:+.0%})")
        rows.append((point.name, *cells))
    return markdown(("load", *(f"{name}: measured → simulated" for name in worst)), rows), worst
