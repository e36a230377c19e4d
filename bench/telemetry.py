"""Measures what telemetry costs: `python -m bench telemetry`, or `make bench CASE=telemetry`.

Four shops get the same requests in turn, round by round: one that neither measures nor logs calls, one with metrics
that are read every few seconds, one that logs calls as well (the default), and one that also traces a hundredth of the
requests. Ratios compare rounds of the same number.
"""

import itertools
import os
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.bench_shop import BenchShop, running
from bench.data import HOT, fill_orders, fill_products, product_id
from bench.load import Kind, installed
from bench.report import check, section, write
from bench.rounds import POSTGRES, one_round
from bench.span_sink import span_sink
from bench.table import Round, markdown, save
from local.edge import EdgeSettings
from local.settings import LOOPBACK, REPOSITORY, free_ports

RESULT = REPOSITORY / "build" / "bench-telemetry.json"
NAME = "telemetry"
"""The name of the place in the documentation."""

PRODUCTS = 10_000
ORDERS = 10_000
CONNECTIONS = 32
ROUNDS = 9
SECONDS = 2
SCRAPE_INTERVAL = 5.0
"""Seconds between two readings of the metrics: three times as often as is usual."""

SAMPLED = 0.01
"""The share of requests that are traced."""

PARTS = ("envoy", "order", "product", POSTGRES)

BASELINE, METRICS, DEFAULT, TRACES = "nothing", "metrics", "metrics and logs (default)", "the same, 1 % traced"


class ObservedShop(BenchShop):
    """A shop with some of the telemetry."""

    def __init__(self, state: Path, *, metrics: bool = False, logs: bool = False, collector: str = "") -> None:
        super().__init__(state, orders=1, edges=1)
        names: Sequence[str] = ("product", "order-0", "sse-0", "envoy-0")
        self.metrics_ports: dict[str, int] = dict(zip(names, free_ports(len(names)), strict=True)) if metrics else {}
        self._logs = logs
        self._collector = collector

    def command(self, name: str) -> tuple[Sequence[str | Path], Mapping[str, str]]:
        command, environment = super().command(name)
        more = {"METRICS_PORT": str(self.metrics_ports.get(name, 0)), "LOG_LEVEL": "INFO", "LOG_FORMAT": "json"}
        if not self._logs:
            more["LOG_CALLS_PER_SECOND"] = "0"
        if self._collector:
            more |= {"OTEL_EXPORTER_OTLP_ENDPOINT": self._collector, "OTEL_TRACES_SAMPLER_ARG": str(SAMPLED)}
        return command, {**environment, **more}

    def edge_settings(self, n: int) -> EdgeSettings:
        settings = super().edge_settings(n)
        if self.metrics_ports:
            settings = replace(settings, metrics_port=self.metrics_ports[f"envoy-{n}"])
        return replace(settings, otlp_endpoint=self._collector, sample_ratio=SAMPLED) if self._collector else settings


@contextmanager
def scraped(shops: Sequence[ObservedShop]) -> Iterator[None]:
    """Reads the metrics of all processes from time to time until the end of the block."""
    ended = threading.Event()
    paths = {"envoy-0": "/stats/prometheus"}
    urls = [
        f"http://{LOOPBACK}:{port}{paths.get(name, '/metrics')}"
        for shop in shops
        for name, port in shop.metrics_ports.items()
    ]

    def read() -> None:
        while not ended.wait(SCRAPE_INTERVAL):
            for url in urls:
                with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own, on loopback
                    response.read()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()


@dataclass(frozen=True, kw_only=True)
class Result:
    """The medians of the rounds of one request and shop. CPU seconds are those of 1,000 requests."""

    request: str
    shop: str
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    cpu_by_process: Mapping[str, float]
    rps_ratio: float
    """Requests per second, divided by those of the shop without telemetry in the same round."""
    cpu_ratio: float


REQUESTS: Mapping[str, tuple[Kind, Sequence[str]]] = {
    "GET a product": ("get", [f"/api/v1/products/{product_id(n)}" for n in range(1, HOT + 1)]),
    "POST an order": ("order", [str(product_id(n)) for n in range(1, HOT + 1)]),
}


def summarise(found: Mapping[tuple[str, str], Sequence[Round]]) -> list[Result]:
    """Returns the medians of the rounds of each request and shop."""
    results: list[Result] = []
    for (request, shop), rounds in found.items():
        pairs = list(zip(rounds, found[request, BASELINE], strict=True))
        results.append(
            Result(
                request=request,
                shop=shop,
                rps=round(median(each.load.rps for each in rounds), 1),
                p50_ms=round(median(each.load.p50_ms for each in rounds), 1),
                p99_ms=round(median(each.load.p99_ms for each in rounds), 1),
                cpu_s=round(median(each.cpu for each in rounds), 3),
                cpu_by_process={part: round(median(each.cpu_s_per_1000[part] for each in rounds), 3) for part in PARTS},
                rps_ratio=round(median(ours.load.rps / theirs.load.rps for ours, theirs in pairs), 3),
                cpu_ratio=round(median(ours.cpu / theirs.cpu for ours, theirs in pairs), 3),
            )
        )
    return results


def table(results: Sequence[Result]) -> str:
    """Returns the results as a table in Markdown."""
    head = ("request", "telemetry", "requests/s", "ratio", "p50 ms", "p99 ms", "CPU s per 1,000", "ratio", *PARTS)
    rows = [
        (
            *(each.request, each.shop, f"{each.rps:,.0f}", f"{each.rps_ratio:.2f}", f"{each.p50_ms:.1f}"),
            *(f"{each.p99_ms:.1f}", f"{each.cpu_s:.3f}", f"{each.cpu_ratio:.2f}"),
            *(f"{each.cpu_by_process[part]:.3f}" for part in PARTS),
        )
        for each in results
    ]
    return markdown(head, rows)


def measure(shops: Mapping[str, ObservedShop], *, rounds: int, seconds: int) -> list[Result]:
    """Runs the rounds of all requests at all shops in turn. The first round warms up, and does not count."""
    found: dict[tuple[str, str], list[Round]] = {(request, shop): [] for request in REQUESTS for shop in shops}
    salts = itertools.count(1)
    for number in range(rounds + 1):
        for request, (kind, lines) in REQUESTS.items():
            # Neighbours in time are compared, each as often before the other as after it.
            for name in list(shops)[:: -1 if number % 2 else 1]:
                file = shops[name].state / f"{kind}.txt"
                file.write_text("\n".join(lines) + "\n")
                took = one_round(shops[name], PARTS, kind, file, next(salts), connections=CONNECTIONS, seconds=seconds)
                if number:
                    found[request, name].append(took)
        print(f"round {number} of {rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return summarise(found)


def telemetry(*, rounds: int = ROUNDS, seconds: int = SECONDS, write_to: Path | None = None) -> int:
    """Runs all cases. Returns the exit status."""
    installed()
    if write_to:
        check(write_to, NAME)
    with ExitStack() as stack:
        collector = stack.enter_context(span_sink())
        made = {
            BASELINE: lambda state: ObservedShop(state),
            METRICS: lambda state: ObservedShop(state, metrics=True),
            DEFAULT: lambda state: ObservedShop(state, metrics=True, logs=True),
            TRACES: lambda state: ObservedShop(state, metrics=True, logs=True, collector=collector.endpoint),
        }
        shops = {name: stack.enter_context(running(make)) for name, make in made.items()}
        for shop in shops.values():
            fill_products(shop.postgres.service("product"), PRODUCTS)
            fill_orders(shop.postgres.service("order"), PRODUCTS, ORDERS, ours=True)
            shop.wait()
        stack.enter_context(scraped(list(shops.values())))
        results = measure(shops, rounds=rounds, seconds=seconds)
        print(f"the collector got {collector.bytes:,} bytes", file=sys.stderr)
    save(results, RESULT)
    conditions = f"{CONNECTIONS} connections, medians of {rounds} rounds of {seconds} s"
    text = section("make bench CASE=telemetry", conditions, table(results))
    print(text)
    if write_to:
        write(write_to, NAME, text)
    return 0
