"""The shop beside what a team might write instead: `python -m bench compare`, or `make bench`.

Every case is run in rounds, each system in turn, at the same concurrency, against the same rows in the same PostgreSQL,
which writes to the disk. A round's CPU seconds are those of all processes that took part, the client left out, and with
what the shop does after its answer (confirmations). Figures are medians of the rounds, and so are ratios.
"""

import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.data import HOT, THINGS, WORDS, order_id, product_id
from bench.load import Kind, Load, installed, run
from bench.rivals.shop import DATABASE, ComparedShop, compared_shop
from bench.table import CEILING, SHOP, Result, Round, save, summarise, table
from local.settings import REPOSITORY

RESULT = REPOSITORY / "build" / "bench.json"

PRODUCTS = 10_000
ORDERS = 250_000
CONNECTIONS = 32
ROUNDS = 5
SECONDS = 4.0

SETTLE = 20.0
"""Seconds within which the shop must have confirmed or released what a round left."""


@dataclass(frozen=True)
class Case:
    """What is asked of every system."""

    kind: Kind
    lines: Callable[[], Sequence[str]]
    """Paths, or ids."""


CASES: Mapping[str, Case] = {
    "get-product": Case("get", lambda: [f"/api/v1/products/{product_id(n)}" for n in range(1, HOT + 1)]),
    "list": Case("get", lambda: ["/api/v1/products?pageSize=20"]),
    "search": Case("get", lambda: [f"/api/v1/products?pageSize=20&search={word}" for word in (*WORDS, *THINGS)]),
    "get-order": Case("get", lambda: [f"/api/v1/orders/{order_id(n)}" for n in range(1, HOT + 1)]),
    "list-orders": Case("get", lambda: ["/api/v1/orders?pageSize=20"]),
    "create-order": Case("order", lambda: [str(product_id(n)) for n in range(1, HOT + 1)]),
    "cancel-order": Case(
        "cancel", lambda: [f"/api/v1/orders/{order_id(n)}:cancel" for n in range(HOT + 1, ORDERS + 1)]
    ),
}


@contextmanager
def _outbox_settled(shop: ComparedShop) -> Iterator[None]:
    """What the shop does after its answers is part of their cost."""
    yield
    give_up = time.monotonic() + SETTLE
    with psycopg.connect(shop.postgres.service("order"), autocommit=True) as connection:
        while connection.execute("SELECT EXISTS (SELECT FROM outbox)").fetchone() != (False,):
            if time.monotonic() > give_up:
                raise RuntimeError("the outbox does not empty")
            time.sleep(0.01)


def one_round(
    shop: ComparedShop, system: str, case: Case, file: Path, salt: int, *, connections: int, seconds: float
) -> Round:
    before = shop.spent(system)
    with _outbox_settled(shop):
        load: Load = run(shop.url(system), case.kind, file, salt, connections=connections, seconds=seconds)
    after = shop.spent(system)
    cpu = {part: 1000 * (after[part] - before[part]) / load.requests for part in after}
    return Round(load=load, cpu_s_per_1000=cpu)


def measure(shop: ComparedShop, names: Sequence[str], *, rounds: int, seconds: float, connections: int) -> list[Result]:
    results = []
    salts = itertools.count(1)
    for name in names:
        case = CASES[name]
        file = shop.state / f"{name}.txt"
        file.write_text("\n".join(case.lines()) + "\n")
        found: dict[str, list[Round]] = {system: [] for system in shop.systems}
        # An order is cancelled once; the rivals have one database.
        used = dict.fromkeys((SHOP, CEILING, DATABASE), 1)
        for number in range(rounds + 1):
            for system in shop.systems:
                orders = system if system in used else DATABASE
                salt = used[orders] if case.kind == "cancel" else next(salts)
                took = one_round(
                    shop, system, case, file, salt, connections=connections, seconds=seconds if number else 1.0
                )
                used[orders] += took.load.requests + connections
                if number:  # the first is to warm up
                    found[system].append(took)
            shop.check()
        results += summarise(name, found)
        print(f"{name}: done, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return results


def compare(
    names: Sequence[str], *, rounds: int = ROUNDS, seconds: float = SECONDS, connections: int = CONNECTIONS
) -> int:
    """Runs the cases of these names, or all; returns the exit status."""
    installed()
    with compared_shop(PRODUCTS, ORDERS) as shop:
        for system, reason in shop.skipped.items():
            print(f"skipped: {system} ({reason})", file=sys.stderr)
        results = measure(shop, names or tuple(CASES), rounds=rounds, seconds=seconds, connections=connections)
    save(results, RESULT)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {connections} connections,", end=" ")
    print(f"medians of {rounds} rounds of {seconds:g} s, {PRODUCTS:,} products, {ORDERS:,} orders\n")
    print(table(results))
    return 0
