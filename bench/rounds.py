"""One round of load at a shop, and what it cost."""

from collections.abc import Sequence
from pathlib import Path

from bench.bench_shop import BenchShop
from bench.load import Kind, run
from bench.table import Round
from local.settings import LOOPBACK

POSTGRES = "postgres"


def spent(shop: BenchShop, parts: Sequence[str]) -> dict[str, float]:
    """Returns the CPU seconds of processes by kind, as in `order`. POSTGRES is the database server."""
    return {part: shop.postgres_cpu() if part == POSTGRES else shop.cpu(part) for part in parts}


def one_round(
    shop: BenchShop, parts: Sequence[str], kind: Kind, file: Path, salt: int, *, connections: int, seconds: int
) -> Round:
    """Runs one round through the first edge. Work after the response (confirmations) is part of the cost.

    Args:
        shop: The shop.
        parts: The processes whose CPU seconds are measured: see `spent`.
        kind: What to do with the lines of the file: see load.lua.
        file: Paths or ids, a line each.
        salt: See `bench.load.run`.
        connections: Connections that are used at the same time.
        seconds: How long the round takes.

    Raises:
        LoadError: A request failed.
    """
    before = spent(shop, parts)
    url = f"http://{LOOPBACK}:{shop.edge_ports[0]}"
    load = run(url, kind, file, salt, connections=connections, seconds=seconds)
    shop.settle()
    after = spent(shop, parts)
    return Round(load, {part: 1000 * (after[part] - before[part]) / load.requests for part in parts})
