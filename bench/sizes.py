"""How many pods, processors, bytes and connections a shop needs for a rate of orders, by the measured costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bench.costs import AFTER_CHECKPOINT, BUSY, LIGHT, Costs, key
from bench.table import markdown

RATES = (10, 100, 1_000, 3_000, 10_000)

TARGET = 0.6
"""The share of its processors that a pod or a database uses. The rest is for peaks, failures and rollouts."""

MIX: Mapping[str, float] = {
    "CheckoutCart": 1,
    "ProcessOrder": 3,
    "AddCartItem": 4,
    "GetCart": 4,
    "GetOrder": 3,
    "GetProduct": 20,
    "ListProducts": 10,
    "ListProducts, search": 3,
}
"""Requests for each order. ProcessOrder stands for each change of status."""

EVENTS = 4
"""Events of an order, all of which its watcher sees."""

WATCHED = 60.0
"""Seconds for which an order is watched, by one browser."""

SSE_STREAMS = 15_000
"""Streams of a sidecar: SSE_MAX_STREAMS."""

GATEWAY_CORES, DATABASE_CORES = 2, 8

ORDER_CONNECTIONS, PRODUCT_CONNECTIONS = 9, 12
"""Connections of a pod: see docs/configuration.md."""

READS_PER_SECOND = 50
"""How often the tailer of an order process reads at most: order.live.tailer.MIN_READ_INTERVAL."""

DAY = 86_400

_STORING = ("CreateOrder", "ProcessOrder")
"""The requests after which a database is larger."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a rate needs. Processors of databases are of the primary, and at TARGET."""

    rate: float
    envoy_cores: float
    order_pods: int
    product_pods: int
    sse_pods: int
    order_db_cores: float
    product_db_cores: float
    tailing_db_cores: float
    """Of those of the order database: what the tailers of all order processes need."""
    commits: float
    wal_mb: tuple[float, float]
    """Megabytes of log a second: between checkpoints, and right after one."""
    stored_gb: float
    """Gigabytes a day, of both databases."""
    order_connections: int
    product_connections: int


def per_order(costs: Costs, kind: str) -> float:
    """Returns the CPU seconds of a process for one order and the requests that come with it."""
    return sum(times * costs.requests[key(name, LIGHT)].cpu_s[kind] for name, times in MIX.items()) / 1000


def written_per_order(costs: Costs, what: str) -> float:
    """Returns what both databases write for an order and the requests that come with it."""
    found = 0.0
    for name, times in MIX.items():
        written = costs.requests[key(name, LIGHT)].written
        found += times * sum(each[what] for each in written.values()) / 1000
    return found


def size(costs: Costs, rate: float) -> Size | None:
    """Returns what a rate needs; None if the tailer of one order process cannot follow all events."""
    tailing, events = costs.tailing, rate * EVENTS / 1000
    reads = min(READS_PER_SECOND, rate * EVENTS) / 1000
    tailer = events * tailing.order_per_event + reads * tailing.order_per_read
    if tailer >= TARGET:
        return None
    streams = costs.watchers["cpu_s_per_1000_events"] * events
    order_pods = math.ceil(rate * per_order(costs, "order") / (TARGET - tailer))
    product_pods = math.ceil(rate * per_order(costs, "product") / TARGET)
    tailing_db = order_pods * (events * tailing.database_per_event + reads * tailing.database_per_read)
    light, after = (
        sum(each["wal_bytes"] for each in costs.requests[name].written.values()) / 1000
        for name in (key("CreateOrder", BUSY), key(AFTER_CHECKPOINT, BUSY))
    )
    # The rest of the mix changes rows in place, and vacuum frees what it leaves.
    placed, moved = (sum(each["size"] for each in costs.requests[key(n, BUSY)].written.values()) for n in _STORING)
    stored = (max(0.0, placed) + MIX["ProcessOrder"] * max(0.0, moved)) / 1000
    wal = rate * written_per_order(costs, "wal_bytes") / 1e6
    return Size(
        rate=rate,
        envoy_cores=rate * per_order(costs, "envoy") / TARGET,
        order_pods=order_pods,
        product_pods=product_pods,
        sse_pods=math.ceil(max(rate * WATCHED / SSE_STREAMS, streams / TARGET)),
        order_db_cores=(rate * per_order(costs, "order-db") + tailing_db) / TARGET,
        product_db_cores=rate * per_order(costs, "product-db") / TARGET,
        tailing_db_cores=tailing_db / TARGET,
        commits=rate * written_per_order(costs, "transactions"),
        wal_mb=(wal, wal + rate * max(0.0, after - light) / 1e6),
        stored_gb=rate * DAY * stored / 1e9,
        order_connections=order_pods * ORDER_CONNECTIONS,
        product_connections=product_pods * PRODUCT_CONNECTIONS,
    )


def saturation(costs: Costs) -> str:
    """Returns what is full first for each request, with one pod of each, as a table."""
    cores = {"envoy": GATEWAY_CORES, "order": 1, "product": 1, "order-db": DATABASE_CORES, "product-db": DATABASE_CORES}
    rows: list[tuple[str, ...]] = []
    for each in costs.requests.values():
        if each.connections == BUSY and not each.case.startswith(AFTER_CHECKPOINT):
            rates = sorted((1000 * cores[part] / max(each.cpu_s[part], 1e-9), part) for part in cores)
            cells = [f"{part}: {rate:,.0f}" for rate, part in rates[:3]]
            rows.append((each.case.rpartition(" × ")[0], *cells))
    return markdown(("request", "full first, at requests/s", "then", "then"), rows)


def text(costs: Costs) -> str:
    """Returns the sizes as tables."""
    head = (
        *("orders/s", "Envoy cores", "order pods", "product pods", "sidecars", "order DB cores", "of them for tailers"),
        *("product DB cores", "commits/s", "WAL MB/s", "GB a day", "connections: order DB", "product DB"),
    )
    rows: list[tuple[str, ...]] = []
    for rate in RATES:
        needed = size(costs, rate)
        if needed is None:
            rows.append((f"{rate:,}", "the tailer of one order process cannot follow", *["–"] * (len(head) - 2)))
            continue
        rows.append(
            (
                *(f"{rate:,}", f"{needed.envoy_cores:,.1f}", f"{needed.order_pods:,}", f"{needed.product_pods:,}"),
                *(f"{needed.sse_pods:,}", f"{needed.order_db_cores:,.1f}", f"{needed.tailing_db_cores:,.1f}"),
                *(f"{needed.product_db_cores:,.1f}", f"{needed.commits:,.0f}"),
                f"{needed.wal_mb[0]:,.1f} to {needed.wal_mb[1]:,.1f}",
                *(f"{needed.stored_gb:,.1f}", f"{needed.order_connections:,}", f"{needed.product_connections:,}"),
            )
        )
    mix = ", ".join(f"{times:g} {name}" for name, times in MIX.items())
    return (
        f"One pod of each, alone on its processors ({GATEWAY_CORES} for a gateway, {DATABASE_CORES} for a database,"
        f" one for the others):\n\n{saturation(costs)}\n\n"
        f"For each order: {mix}; one watcher for {WATCHED:g} seconds.\n\n{markdown(head, rows)}"
    )
