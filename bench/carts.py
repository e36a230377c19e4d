"""Measures carts: `python -m bench carts`, or `make bench-carts`.

Three measures: requests for carts beside CreateOrder (cost), ten thousand carts that want the same hundred pieces
(rush), and adds while a million expired carts are deleted (purge).
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import cart_purge, cart_rush
from bench.bench_shop import BenchShop, running
from bench.cart_data import cart_id, etag, fill_carts
from bench.data import HOT, fill_orders, fill_products, product_id
from bench.load import Kind, installed
from bench.report import check, section, write
from bench.rounds import POSTGRES, one_round
from bench.table import Round, markdown
from local.settings import REPOSITORY

RESULT = REPOSITORY / "build" / "bench-carts.json"
NAME = "carts"
"""The name of the place in the documentation."""

PRODUCTS = 10_000
ORDERS = 100_000
CARTS = 200_000
CHANGED = 10_000
"""Carts that are read and added to. The others are ordered."""

CONNECTIONS = 32
ROUNDS = 5
SECONDS = 3

PARTS = ("envoy", "order", "product", POSTGRES)
"""The processes whose CPU seconds are measured."""

BASELINE = "CreateOrder"


def _lines(kind: Kind) -> Sequence[str]:
    """Returns the lines of a case: see load.lua. Each cart has up to five products."""
    if kind == "order":
        return [str(product_id(n)) for n in range(1, HOT + 1)]
    if kind == "checkout":
        return [f"{cart_id(n)}\t{etag(n)}" for n in range(CHANGED + 1, CARTS + 1)]
    return [f"{cart_id(n)}\t{product_id(1 + (n + 7 * k) % HOT)}" for n in range(1, CHANGED + 1) for k in range(5)]


CASES: Mapping[str, Kind] = {
    BASELINE: "order",
    "CheckoutCart": "checkout",
    "AddCartItem": "add",
    "AddCartItem, with a key": "add-once",
    "GetCart": "cart",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The medians of the rounds of one case. CPU seconds are those of 1,000 requests."""

    case: str
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    cpu_by_process: Mapping[str, float]
    rps_ratio: float
    """Requests per second, divided by those of CreateOrder in the same round."""
    cpu_ratio: float
    """CPU seconds, divided by those of CreateOrder in the same round."""


def summarise(found: Mapping[str, Sequence[Round]]) -> list[Result]:
    """Returns the medians of the rounds of each case. Ratios compare rounds of the same number."""
    return [
        Result(
            case=case,
            rps=round(median(each.load.rps for each in rounds), 1),
            p50_ms=round(median(each.load.p50_ms for each in rounds), 1),
            p99_ms=round(median(each.load.p99_ms for each in rounds), 1),
            cpu_s=round(median(each.cpu for each in rounds), 2),
            cpu_by_process={
                part: round(median(each.cpu_s_per_1000[part] for each in rounds), 2)
                for part in rounds[0].cpu_s_per_1000
            },
            rps_ratio=round(median(a.load.rps / b.load.rps for a, b in zip(rounds, found[BASELINE], strict=True)), 2),
            cpu_ratio=round(median(a.cpu / b.cpu for a, b in zip(rounds, found[BASELINE], strict=True)), 2),
        )
        for case, rounds in found.items()
    ]


def table(results: Sequence[Result]) -> str:
    """Returns the results as a table in Markdown."""
    head = ("request", "requests/s", "to CreateOrder", "p50 ms", "p99 ms", "CPU s per 1,000", "to CreateOrder", *PARTS)
    rows = [
        (
            *(each.case, f"{each.rps:,.0f}", f"{each.rps_ratio:.2f}", f"{each.p50_ms:.1f}", f"{each.p99_ms:.1f}"),
            *(f"{each.cpu_s:.2f}", f"{each.cpu_ratio:.2f}", *(f"{each.cpu_by_process[part]:.2f}" for part in PARTS)),
        )
        for each in results
    ]
    return markdown(head, rows)


def cost(rounds: int = ROUNDS, seconds: int = SECONDS) -> tuple[bool, object, str]:
    """Runs the rounds of all requests in turn. The first round warms up, and does not count."""
    found: dict[str, list[Round]] = {case: [] for case in CASES}
    with running(lambda state: BenchShop(state, orders=1, edges=1)) as shop:
        fill_products(shop.postgres.service("product"), PRODUCTS)
        fill_orders(shop.postgres.service("order"), PRODUCTS, ORDERS, ours=True)
        fill_carts(shop.postgres.service("order"), 1, CARTS, products=HOT)
        shop.wait()
        files = {}
        for case, kind in CASES.items():
            files[case] = shop.state / f"{kind}.txt"
            files[case].write_text("\n".join(_lines(kind)) + "\n")
        ordered = 1
        for number in range(rounds + 1):
            for index, (case, kind) in enumerate(CASES.items()):
                salt = ordered if kind == "checkout" else number * len(CASES) + index + 1
                took = one_round(
                    shop,
                    PARTS,
                    kind,
                    files[case],
                    salt,
                    connections=CONNECTIONS,
                    seconds=seconds if number else 1,
                )
                if kind == "checkout":
                    ordered += took.load.requests + CONNECTIONS
                if number:
                    found[case].append(took)
            shop.check()
            print(f"round {number} of {rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    results = summarise(found)
    conditions = f"{CONNECTIONS} connections, medians of {rounds} rounds of {seconds} s, {CARTS:,} carts."
    return True, [vars(each) for each in results], f"Requests: {conditions}\n\n{table(results)}"


MEASURES: Mapping[str, Callable[[], tuple[bool, object, str]]] = {
    "cost": cost,
    "rush": cart_rush.rush,
    "purge": cart_purge.purge,
}
"""Each returns whether it held what it must hold, its figures for the file, and for people."""


def carts(names: Sequence[str], write_to: Path | None = None) -> int:
    """Runs the measures of these names, or all. Returns the exit status: 1 if one did not hold what it must."""
    installed()
    if write_to:
        check(write_to, NAME)
    names = names or tuple(MEASURES)
    held, figures, texts = True, {}, []
    for name in names:
        print(f"{name}, load average {os.getloadavg()[0]:.1f} …", file=sys.stderr)
        ok, figures[name], text = MEASURES[name]()
        held = held and ok
        texts.append(text)
        print(text)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")
    if write_to:
        write(write_to, NAME, section("make bench-carts", "one replica of each service", "\n\n".join(texts)))
    return 0 if held else 1
