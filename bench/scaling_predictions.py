"""What the simulation says about rates that one machine cannot make, on machines of their own."""

import math
from dataclasses import replace

from bench.order_model import STATEMENTS, Load, Parameters, Prediction, Topology, simulate
from bench.sizes import TARGET
from bench.table import markdown

RATES = (100, 1_000, 3_000, 10_000)
REPLICATION = 0.001
"""Seconds that a commit waits for the synchronous standby: that of another zone, by the docs of most clouds."""

MAX_ORDERS = 20_000
"""Orders that are simulated in one case at most."""

HOT_PODS = 4
HOT_DELAYS = (0.0, 0.001, 0.005)
"""Seconds of replication at which a bestseller is simulated."""


def topology_for(rate: float, parameters: Parameters) -> Topology:
    """Returns so many pods that none works for more than TARGET of the time, if batches are small."""
    costs = parameters.costs
    order = costs["order"].call + STATEMENTS * costs["order"].batch / 2
    envoy = costs["envoy"].call + costs["envoy"].batch / 2
    product = costs["product"].call + costs["product"].batch / 2
    return Topology(
        gateways=max(1, math.ceil(rate * envoy / TARGET / 2)),
        orders=max(1, math.ceil(rate * order / TARGET)),
        products=max(1, math.ceil(rate * product / TARGET)),
        database_cores=16 if rate >= 3_000 else 8,
        replication=REPLICATION,
    )


def _pods(topology: Topology) -> str:
    return f"{topology.gateways}, {topology.orders}, {topology.products}"


def _use(found: Prediction) -> tuple[str, ...]:
    return tuple(f"{found.use[kind]:.0%}" for kind in ("gateway", "order", "product", "order-db", "product-db"))


_USE_HEAD = ("busiest gateway", "order", "product", "order DB", "product DB")


def _rates(parameters: Parameters) -> str:
    rows: list[tuple[str, ...]] = []
    for rate in RATES:
        enough = topology_for(rate, parameters)
        few = replace(enough, orders=max(1, math.floor(enough.orders * TARGET)))
        for topology in (enough, few) if few != enough else (enough,):
            seconds = min(10.0, MAX_ORDERS / rate)
            found = simulate(parameters, topology, Load(rate=rate), seconds=seconds)
            cells = (
                f"{found.rate:,.0f}",
                f"{found.refused / seconds:,.0f}",
                f"{found.p50_ms:.1f}",
                f"{found.p99_ms:.1f}",
            )
            rows.append((f"{rate:,}", _pods(topology), *cells, f"{found.batch:.1f}", *_use(found)))
    head = ("orders/s wanted", "pods: gateway, order, product", "placed/s", "refused/s", "p50 ms", "p99 ms", "batch")
    return markdown((*head, *_USE_HEAD), rows)


def _one_pod(parameters: Parameters) -> str:
    rows = []
    for topology in (Topology(), Topology(orders=2), Topology(orders=4), Topology(orders=4, products=2)):
        placed = replace(topology, replication=REPLICATION)
        found = simulate(parameters, placed, Load(connections=150 * topology.orders), seconds=2.0)
        rows.append((_pods(topology), f"{found.rate:,.0f}", f"{found.batch:.0f}", f"{found.p50_ms:.0f}", *_use(found)))
    return markdown(("pods: gateway, order, product", "placed/s at most", "batch", "p50 ms", *_USE_HEAD), rows)


def _hot(parameters: Parameters) -> str:
    rows = []
    for delay in HOT_DELAYS:
        for pods in (1, HOT_PODS):
            cells = []
            for size in (64, 8, 1):
                topology = Topology(
                    gateways=pods, orders=pods, products=pods, replication=delay, hot_share=1.0, max_batch=size
                )
                found = simulate(parameters, topology, Load(connections=150 * pods), seconds=2.0)
                cells.append(f"{found.rate:,.0f}")
            rows.append((f"{1000 * delay:g}", str(pods), *cells))
    head = ("replication ms", "order pods", "orders/s of one product, batches of 64", "of 8", "of 1")
    return markdown(head, rows)


def text(parameters: Parameters) -> str:
    """Returns the predictions as tables."""
    return (
        f"What one pod of each can do. Each pod has a processor of its own, a gateway has two, a database has eight."
        f" A commit waits {1000 * REPLICATION:g} ms for the standby:\n\n{_one_pod(parameters)}\n\n"
        f"Orders at random times, with as many pods as keep each below {TARGET:.0%}, and with fewer order pods:\n\n"
        f"{_rates(parameters)}\n\nAll orders want the same product:\n\n{_hot(parameters)}"
    )
