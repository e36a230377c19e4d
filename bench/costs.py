"""The measured costs: of requests, by process, with what the databases write; and of watchers.

`bench/costs.json` has the figures of the documentation. From it, anybody can simulate and compute without measuring.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from psycopg import AsyncConnection

from bench.bench_shop import running, server_cpu
from bench.cart_data import cart_id, etag, fill_carts
from bench.compare import CASES as READS
from bench.data import HOT, fill_orders, fill_products, fill_reservations, order_id, product_id
from bench.files import allow
from bench.load import Kind, run
from bench.orders import place
from bench.report import machine
from bench.scaling_shop import SERVICES, ScalingShop
from bench.streams import steady
from local.settings import LOOPBACK
from order.live.cursor import MAX_EVENTS, EventCursor

MEASURED = Path(__file__).with_name("costs.json")
"""The figures of the documentation."""

PRODUCTS = 10_000
ORDERS = 200_000
CARTS = 60_000
CHANGED = 10_000
"""Carts that are read and changed. The others are ordered."""

PROCESSES = ("envoy", "order", "product", "order-db", "product-db", "sse")
CREATE = "CreateOrder"
AFTER_CHECKPOINT = "CreateOrder, after a checkpoint"
CALIBRATION = (1, 4, 32)
"""Numbers of connections at which CreateOrder is measured: the more orders come together, the less one costs."""

LIGHT, BUSY = 4, 32
"""Connections at which everything else is measured: when little is shared, and when much is."""

STATISTICS_DELAY = 11.0
"""Seconds until an idle connection of PostgreSQL has reported what it did."""

WATCHERS, CHANGES = 2_000, 200
TAILED_CURSORS = 50


@dataclass(frozen=True)
class Case:
    """A request that is measured."""

    kind: Kind
    lines: Sequence[str]
    connections: int = BUSY
    writes: bool = False
    checkpoint: bool = False
    """Whether it begins with a checkpoint, after which the log has an image of each page that is written."""


def _cases() -> dict[str, Case]:
    products = [str(product_id(n)) for n in range(1, HOT + 1)]
    carts = [f"{cart_id(n)}\t{product_id(1 + (n + 7 * k) % HOT)}" for n in range(1, CHANGED + 1) for k in range(5)]
    checkouts = [f"{cart_id(n)}\t{etag(n)}" for n in range(CHANGED + 1, CARTS + 1)]
    moves = [f"/api/v1/orders/{order_id(n)}:process" for n in range(HOT + 1, ORDERS + 1)]
    pages = [f"/api/v1/products?pageSize=20&category=Category%20{n}" for n in range(20)]
    both = {
        "CheckoutCart": Case("checkout", checkouts, writes=True),
        "AddCartItem": Case("add", carts, writes=True),
        "ProcessOrder": Case("cancel", moves, writes=True),
        "GetCart": Case("cart", carts),
        "GetOrder": Case("get", READS["get-order"].lines),
        "GetProduct": Case("get", READS["get-product"].lines),
        "ListProducts": Case("get", pages),
        "ListProducts, search": Case("get", READS["search"].lines),
    }
    return {
        **{key(CREATE, n): Case("order", products, n, writes=True) for n in CALIBRATION},
        **{key(name, n): replace(case, connections=n) for name, case in both.items() for n in (LIGHT, BUSY)},
    }


def _after_checkpoint() -> Case:
    products = [str(product_id(n)) for n in range(1, HOT + 1)]
    return Case("order", products, writes=True, checkpoint=True)


def key(name: str, connections: int) -> str:
    """Returns the name of a request at a number of connections."""
    return f"{name} × {connections}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A request, or a number of them at a load. All but rates and delays are for 1,000 requests."""

    case: str
    connections: int
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_s: Mapping[str, float]
    """By process, the client included."""
    written: Mapping[str, Mapping[str, float]]
    """What the databases wrote, by service: see `Written`. Nothing for reads."""

    @property
    def shop_cpu_s(self) -> float:
        """CPU seconds of all processes but the client."""
        return sum(seconds for name, seconds in self.cpu_s.items() if name != "client")


class Bench:
    """A shop with data, and the files of requests."""

    def __init__(self, shop: ScalingShop) -> None:
        self.shop = shop
        fill_products(shop.database("product").service("product"), PRODUCTS)
        fill_reservations(shop.database("product").service("product"), PRODUCTS, ORDERS)
        order = shop.database("order").service("order")
        fill_orders(order, PRODUCTS, ORDERS, ours=True)
        fill_carts(order, 1, CARTS, products=HOT)
        shop.wait()
        self._salt = 0
        self._used: dict[str, int] = {}

    def measure(
        self, name: str, case: Case, *, rounds: int = 1, seconds: int, think: float | None = None, exact: bool = True
    ) -> Measured:
        """Runs a case. With `exact`, it waits for the statistics of the databases."""
        file = self.shop.state / "requests.txt"
        file.write_text("\n".join(case.lines) + "\n")
        url = f"http://{LOOPBACK}:{self.shop.edge_ports[0]}"
        loads, spent = [], []
        if case.checkpoint:
            self.shop.checkpoint()
        written = {service: self.shop.written(service) for service in SERVICES}
        for _ in range(rounds):
            before = self.shop.spent()
            load = run(
                url,
                case.kind,
                file,
                self._next_salt(case),
                connections=case.connections,
                seconds=seconds,
                think=think,
            )
            self._note_used(case, load.requests)
            self.shop.settle()
            after = self.shop.spent()
            loads.append(load)
            spent.append({part: 1000 * (after[part] - before[part]) / load.requests for part in PROCESSES})
            spent[-1]["client"] = 1000 * load.cpu_s / load.requests
        if case.writes and exact:
            time.sleep(STATISTICS_DELAY)
        requests = sum(load.requests for load in loads)
        print(f"{name}: {requests} requests, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
        self.shop.check()
        return Measured(
            case=name,
            connections=case.connections,
            rps=round(median(load.rps for load in loads), 1),
            p50_ms=round(median(load.p50_ms for load in loads), 2),
            p99_ms=round(median(load.p99_ms for load in loads), 2),
            cpu_s={part: round(median(each[part] for each in spent), 4) for part in (*PROCESSES, "client")},
            written={
                service: {
                    kind: round(1000 * value / requests, 4)
                    for kind, value in self.shop.written(service).since(written[service]).items()
                }
                for service in SERVICES
            }
            if case.writes
            else {},
        )

    def _next_salt(self, case: Case) -> int:
        if case.kind in ("cancel", "checkout"):  # each line can be sent once
            return self._used.get(case.kind, 1)
        self._salt += 1
        return self._salt

    def _note_used(self, case: Case, requests: int) -> None:
        self._used[case.kind] = self._used.get(case.kind, 1) + requests + case.connections


def measure_requests(bench: Bench, *, rounds: int, seconds: int) -> list[Measured]:
    """Measures all requests, each in rounds after one that warms up."""
    results = []
    for name, case in _cases().items():
        bench.measure(f"{name}, warm-up", case, seconds=1, exact=False)
        results.append(bench.measure(name, case, rounds=rounds, seconds=seconds))
    return results


@dataclass(frozen=True, kw_only=True)
class Tailing:
    """What the tailer of one order process costs. CPU seconds for 1,000 events, or reads."""

    order_per_event: float
    database_per_event: float
    order_per_read: float
    database_per_read: float


async def measure_tailing(bench: Bench) -> Tailing:
    """Reads the same events with many cursors: as many as there may be order processes."""
    postgres = bench.shop.database("order")
    conninfo = postgres.service("order")
    async with await AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=0) as connection:

        async def read(events: int, cursors: int) -> tuple[float, float]:
            each = [EventCursor(connection) for _ in range(cursors)]
            for cursor in each:
                await cursor.start()
            await asyncio.to_thread(place, conninfo, events)
            own, database = time.process_time(), server_cpu(postgres)
            for cursor in each:
                assert len(await cursor.read()) >= events
            return time.process_time() - own, server_cpu(postgres) - database

        own, database = await read(MAX_EVENTS, TAILED_CURSORS)
        own_read, database_read = await read(1, 20 * TAILED_CURSORS)
    events, reads = MAX_EVENTS * TAILED_CURSORS / 1000, 20 * TAILED_CURSORS / 1000
    return Tailing(
        order_per_event=round(own / events, 4),
        database_per_event=round(database / events, 4),
        order_per_read=round(own_read / reads, 4),
        database_per_read=round(database_read / reads, 4),
    )


def measure_watchers() -> dict[str, float]:
    """Measures thousands of watchers, as `make bench-streams` does. Raises RuntimeError if an event was lost."""
    allow(WATCHERS + 500)
    result = asyncio.run(steady(WATCHERS, CHANGES, 15))
    if not result.ok:
        raise RuntimeError("an event was lost or came twice: see make bench-streams")
    assert result.idle_cpu_percent is not None
    assert result.idle_cpu_percent_envoy is not None
    return {
        "kib_order": result.kib_per_watcher_order,
        "kib_sse": result.kib_per_watcher_sse,
        "kib_envoy": result.kib_per_watcher_envoy,
        "cpu_s_per_1000_events": result.cpu_s_per_1000_events,
        "idle_cores_per_1000": round(result.idle_cpu_percent / 100 / WATCHERS * 1000, 5),
        "idle_cores_per_1000_envoy": round(result.idle_cpu_percent_envoy / 100 / WATCHERS * 1000, 5),
        "p99_ms": result.p99_ms,
    }


def measure(points: Callable[[Bench, Sequence[Measured]], object], *, rounds: int, seconds: int) -> dict[str, Any]:
    """Measures everything. `points` measures more in the same shop, and returns what `costs.json` keeps of it."""
    load_average = round(os.getloadavg()[0], 1)
    watchers = measure_watchers()
    with running(ScalingShop) as shop:
        bench = Bench(shop)
        requests = measure_requests(bench, rounds=rounds, seconds=seconds)
        tailing = asyncio.run(measure_tailing(bench))
        measured_points = points(bench, requests)
        # Last: whatever came after it would write images of its pages, too.
        requests.append(bench.measure(key(AFTER_CHECKPOINT, BUSY), _after_checkpoint(), rounds=rounds, seconds=seconds))
    return {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load_average": load_average,
        "rounds": rounds,
        "seconds": seconds,
        "requests": [asdict(each) for each in requests],
        "tailing": asdict(tailing),
        "watchers": watchers,
        "points": measured_points,
    }


@dataclass(frozen=True)
class Costs:
    """The figures of a file."""

    conditions: Mapping[str, Any]
    requests: Mapping[str, Measured]
    tailing: Tailing
    watchers: Mapping[str, float]
    points: Sequence[Mapping[str, Any]]


def load(path: Path = MEASURED) -> Costs:
    """Reads the figures of a file."""
    found = json.loads(path.read_text())
    return Costs(
        conditions={name: found[name] for name in ("machine", "date", "load_average", "rounds", "seconds", "cores")},
        requests={each["case"]: Measured(**each) for each in found["requests"]},
        tailing=Tailing(**found["tailing"]),
        watchers=found["watchers"],
        points=found["points"],
    )
