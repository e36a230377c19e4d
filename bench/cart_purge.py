"""Adds to carts while a million expired carts are deleted, in the same process and database.

Rounds with the purge and rounds without it take turns. Then the purge goes on, beside adds, until no expired cart is
left.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.bench_shop import BenchShop, running
from bench.cart_data import cart_id, fill_carts, fill_stale_carts, stale_carts
from bench.data import HOT, fill_products, product_id
from bench.fleet import Command
from bench.load import Load, run
from bench.table import markdown
from local.settings import LOOPBACK
from order.jobs.expired_carts import PAUSE_FACTOR, PURGE_BATCH_SIZE

STALE = 1_000_000
CARTS = 10_000
CONNECTIONS = 8
SECONDS = 8
PAIRS = 12
MAX_PURGE_SECONDS = 1_500

MAX_RATIO = 1.2
"""How many times as long as without the purge the slowest adds may take."""


class PurgedShop(BenchShop):
    """A shop whose carts are purged while a file exists."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, orders=1, edges=1)
        self.switch = state / "purge"

    def command(self, name: str) -> Command:
        command, environment = super().command(name)
        if name.startswith("order"):
            command = [sys.executable, "-m", "bench.purging_order", str(self.switch)]
        return command, environment


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A round without the purge, and one with it."""

    without: Load
    during: Load


def measure(shop: PurgedShop) -> tuple[list[Pair], float, int]:
    """Runs the rounds.

    Returns:
        The pairs, the seconds that the purge worked, and how many expired carts are left.
    """
    conninfo = shop.postgres.service("order")
    file = shop.state / "adds.txt"
    lines = [f"{cart_id(n)}\t{product_id(1 + (n + 7 * k) % HOT)}" for n in range(1, CARTS + 1) for k in range(5)]
    file.write_text("\n".join(lines) + "\n")
    url = f"http://{LOOPBACK}:{shop.edge_ports[0]}"

    def adds(salt: int) -> Load:
        return run(url, "add", file, salt, connections=CONNECTIONS, seconds=SECONDS)

    adds(1)  # warms up, and gives the carts their items
    pairs: list[Pair] = []
    worked, left = 0.0, stale_carts(conninfo)
    while left and worked < MAX_PURGE_SECONDS:
        salt = 2 + 2 * round(worked)
        without = adds(salt) if len(pairs) < PAIRS else None
        shop.switch.touch()
        start = time.monotonic()
        during = adds(salt + 1)
        worked += time.monotonic() - start
        shop.switch.unlink()
        left = stale_carts(conninfo)
        text = f"{left:,} left, load average {os.getloadavg()[0]:.1f}"
        if without:
            pairs.append(Pair(without=without, during=during))
            text += f", p99 {without.p99_ms:.1f} and {during.p99_ms:.1f} ms"
        print(text, file=sys.stderr)
        shop.check()
    return pairs, worked, left


def ratio(pairs: Sequence[Pair]) -> float:
    """Returns the p99 during the purge, divided by that without it: the median of the pairs."""
    return round(median(each.during.p99_ms / each.without.p99_ms for each in pairs), 2)


def purge() -> tuple[bool, object, str]:
    """Measures adds with the purge and without it."""
    with running(PurgedShop) as shop:
        fill_products(shop.postgres.service("product"), HOT)
        fill_carts(shop.postgres.service("order"), 1, CARTS, products=HOT)
        fill_stale_carts(shop.postgres.service("order"), STALE)
        shop.wait()
        pairs, seconds, left = measure(shop)
    rows = [
        (
            case,
            f"{median(each.rps for each in loads):,.0f}",
            f"{median(each.p50_ms for each in loads):.1f}",
            f"{median(each.p99_ms for each in loads):.1f}",
        )
        for case, loads in (
            ("without the purge", [each.without for each in pairs]),
            ("during the purge", [each.during for each in pairs]),
        )
    ]
    found = ratio(pairs)
    text = (
        f"Purge: {STALE - left:,} expired carts were deleted in {seconds:,.0f} seconds, in batches of"
        f" {PURGE_BATCH_SIZE} with pauses of {PAUSE_FACTOR} times as long, beside adds by {CONNECTIONS} connections."
        f" The p99 of the adds is {found:.2f} times that without the purge; medians of {len(pairs)} pairs of rounds of"
        f" {SECONDS} s.\n\n" + markdown(("adds", "requests/s", "p50 ms", "p99 ms"), rows)
    )
    figures = {"ratio": found, "seconds": round(seconds), "left": left, "pairs": [asdict(each) for each in pairs]}
    return found <= MAX_RATIO and not left, figures, text
