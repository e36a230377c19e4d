"""Compares the shop with what a team might write instead: `python -m bench compare`, or `make bench`.

Every case runs in rounds, each system in turn, at the same concurrency, on the same rows in the same PostgreSQL, which
writes to the disk. The CPU seconds of a round are those of all processes but the client. Work after the response is
included (confirmations). Figures and ratios are medians of the rounds.
"""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data import HOT, THINGS, WORDS, order_id, product_id
from bench.load import Kind, installed, run
from bench.report import check, section, write
from bench.rivals.shop import DATABASE, ComparedShop, Position, compared_shop
from bench.table import CEILING, SHOP, Result, Round, save, summarise, table
from local.settings import REPOSITORY

RESULT = REPOSITORY / "build" / "bench.json"
NAME = "compare"
"""The name of the place in the documentation."""

PRODUCTS = 10_000
ORDERS = 250_000
CONNECTIONS = 32
ROUNDS = 5
SECONDS = 2


@dataclass(frozen=True)
class Case:
    """The requests of one case, the same for every system."""

    kind: Kind
    lines: Sequence[str]
    """Paths, or ids of products: see load.lua."""
    positions: Sequence[Position] = ()
    """Where in the catalogue more pages begin. Each system is sent its own page tokens for them."""


_LIST = "/api/v1/products?pageSize=20"

CASES: Mapping[str, Case] = {
    "get-product": Case("get", [f"/api/v1/products/{product_id(n)}" for n in range(1, HOT + 1)]),
    "list": Case("get", [_LIST]),
    # All pages that there are, so that no two requests at the same time are equal.
    "list-pages": Case(
        "get",
        [f"{_LIST}&category=Category%20{n}" for n in range(20)],
        [Position("", 20 * n) for n in range(1, PRODUCTS // 20)]
        + [Position(f"Category {n}", 20 * page) for n in range(20) for page in range(1, PRODUCTS // 400)],
    ),
    "search": Case("get", [f"{_LIST}&search={word}" for word in (*WORDS, *THINGS)]),
    "get-order": Case("get", [f"/api/v1/orders/{order_id(n)}" for n in range(1, HOT + 1)]),
    "list-orders": Case("get", ["/api/v1/orders?pageSize=20"]),
    "create-order": Case("order", [str(product_id(n)) for n in range(1, HOT + 1)]),
    "cancel-order": Case("cancel", [f"/api/v1/orders/{order_id(n)}:cancel" for n in range(HOT + 1, ORDERS + 1)]),
}

SAME_SHAPE = (
    f"/api/v1/products/{product_id(1)}",
    *(_LIST, f"{_LIST}&search=walnut", f"/api/v1/orders/{order_id(1)}", "/api/v1/orders?pageSize=20"),
)
"""Paths whose responses must have the same fields, and as many rows, in all systems."""


def write_requests(shop: ComparedShop, name: str, system: str) -> Path:
    """Writes the requests of a case to a file, a line each. Returns the file."""
    file = shop.state / f"{name}-{system}.txt"
    case = CASES[name]
    further = [f"{_LIST}&{query}" for query in shop.page_queries(system, case.positions)]
    file.write_text("\n".join([*case.lines, *further]) + "\n")
    return file


def one_round(
    shop: ComparedShop, system: str, case: Case, file: Path, salt: int, *, connections: int, seconds: int
) -> Round:
    """Runs one round. Raises LoadError if a request fails."""
    before = shop.spent(system)
    load = run(shop.url(system), case.kind, file, salt, connections=connections, seconds=seconds)
    shop.settle()
    after = shop.spent(system)
    cpu = {part: 1000 * (after[part] - before[part]) / load.requests for part in after}
    return Round(load=load, cpu_s_per_1000=cpu)


def measure(shop: ComparedShop, names: Sequence[str], *, rounds: int, seconds: int, connections: int) -> list[Result]:
    """Runs the rounds of these cases. Returns a result for each system and case."""
    results: list[Result] = []
    salts = itertools.count(1)
    for name in names:
        case = CASES[name]
        files = {system: write_requests(shop, name, system) for system in shop.systems}
        found: dict[str, list[Round]] = {system: [] for system in shop.systems}
        # An order can be cancelled only once, and all rivals share one database.
        used = dict.fromkeys((SHOP, CEILING, DATABASE), 1)
        for number in range(rounds + 1):
            for system in shop.systems:
                orders = system if system in used else DATABASE
                salt = used[orders] if case.kind == "cancel" else next(salts)
                took = one_round(
                    shop, system, case, files[system], salt, connections=connections, seconds=seconds if number else 1
                )
                used[orders] += took.load.requests + connections
                if number:  # the first round is a warm-up
                    found[system].append(took)
            shop.check()
        results += summarise(name, found)
        print(f"{name}: done, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return results


def compare(
    names: Sequence[str],
    *,
    rounds: int = ROUNDS,
    seconds: int = SECONDS,
    connections: int = CONNECTIONS,
    write_to: Path | None = None,
) -> int:
    """Runs the cases of these names, or all. Returns the exit status."""
    installed()
    if write_to:
        check(write_to, NAME)
    with compared_shop(PRODUCTS, ORDERS) as shop:
        for system, reason in shop.skipped.items():
            print(f"skipped: {system} ({reason})", file=sys.stderr)
        shop.check_same(SAME_SHAPE)
        results = measure(shop, names or tuple(CASES), rounds=rounds, seconds=seconds, connections=connections)
    save(results, RESULT)
    conditions = (
        f"{connections} connections, medians of {rounds} rounds of {seconds} s,"
        f" {PRODUCTS:,} products, {ORDERS:,} orders"
    )
    text = section(
        " ".join(["make bench", *([f"CASE='{' '.join(names)}'"] if names else [])]), conditions, table(results)
    )
    print(text)
    if write_to:
        write(write_to, NAME, text)
    return 0
