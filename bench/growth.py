"""What a shop costs that has grown: `python -m bench growth`, or `make bench CASE=growth`.

The same requests against 10,000 and against 1,000,000 products and orders, one request at a time on each of a few
connections. A page's cost must not depend on how far in it is, nor on how much there is beside it.
"""

import base64
import json
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from bench.data import HOT, fill_orders, fill_products, order_id, product_id
from bench.load import installed, run
from bench.shop import BenchShop, bench_shop
from bench.table import markdown, save
from local.settings import LOOPBACK, REPOSITORY

RESULT = REPOSITORY / "build" / "bench-growth.json"

SMALL, LARGE = 10_000, 1_000_000
CONNECTIONS = 8
SECONDS = 4.0
PAGE = 20
DEEP = 10_000
"""The page that is compared with the first, where there are so many."""


@dataclass(frozen=True, kw_only=True)
class Grown:
    """One case at one size. CPU is that of PostgreSQL."""

    case: str
    rows: int
    rps: float
    p50_ms: float
    p99_ms: float
    postgres_cpu_s_per_1000: float


def _paths(shop: BenchShop, rows: int) -> Mapping[str, Sequence[str]]:
    products, orders = f"/api/v1/products?pageSize={PAGE}", f"/api/v1/orders?pageSize={PAGE}"
    far = min(DEEP, rows // PAGE - 2) * PAGE
    product_row: LiteralString = "SELECT create_time, id FROM product WHERE id = %s"
    order_row: LiteralString = "SELECT create_time, id FROM orders WHERE id = %s"
    deep_product = _token(shop, products, "product", product_row, product_id(far))
    deep_order = _token(shop, orders, "order", order_row, order_id(far))
    return {
        "get-product": [f"/api/v1/products/{product_id(n)}" for n in range(1, HOT + 1)],
        "products, page 1": [products],
        f"products, page {far // PAGE:,}": [f"{products}&pageToken={deep_product}"],
        "products of a category": [f"{products}&category=Category%20{n}" for n in range(20)],
        "products by price": [f"{products}&orderBy=price"],
        "products by name": [f"{products}&orderBy=name"],
        "search, common word": [f"{products}&search=walnut"],
        "search, rare word": [f"{products}&search={n}777" for n in range(1, 9)],
        "search, one SKU": [f"{products}&search=SKU-{n}77" for n in range(10, 99)],
        "search, absent word": [f"{products}&search=zeppelin"],
        "search, short word": [f"{products}&search=oak%20zq"],
        "get-order": [f"/api/v1/orders/{order_id(n)}" for n in range(1, HOT + 1)],
        "orders, page 1": [orders],
        f"orders, page {far // PAGE:,}": [f"{orders}&pageToken={deep_order}"],
        "orders of a status": [f"{orders}&status=PLACED"],
        "orders of an e-mail address": [f"{orders}&customerEmail=ada{n}@example.com" for n in range(100)],
        "order by number": [f"{orders}&number=INV-20260101-{n:08}" for n in range(1, 100)],
    }


def _token(shop: BenchShop, path: str, service: str, query: LiteralString, row_id: Any) -> str:
    """The token of the page after a row: the first page's, with that row's keys in it."""
    with urllib.request.urlopen(_url(shop) + path) as answer:  # noqa: S310 - our own, on loopback
        token = json.load(answer)["nextPageToken"]
    keys = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    with psycopg.connect(shop.postgres.service(service)) as connection:
        found = connection.execute(query, (row_id,)).fetchone()
    assert found, "the row was written before"
    keys[1:] = [round(found[0].timestamp() * 1_000_000), str(found[1])]
    return base64.urlsafe_b64encode(json.dumps(keys, separators=(",", ":")).encode()).decode().rstrip("=")


def _url(shop: BenchShop) -> str:
    return f"http://{LOOPBACK}:{shop.edge_ports[0]}"


def _measure(rows: int, seconds: float, report: Callable[[str], None]) -> list[Grown]:
    results = []
    with bench_shop() as shop:
        report(f"{rows:,} products and orders: loading")
        fill_products(shop.postgres.service("product"), rows, ours=True)
        fill_orders(shop.postgres.service("order"), rows, rows, ours=True)
        shop.wait()
        for number, (case, paths) in enumerate(_paths(shop, rows).items()):
            file = shop.state / f"growth-{number}.txt"
            file.write_text("\n".join(paths) + "\n")
            run(_url(shop), "get", file, 1, connections=CONNECTIONS, seconds=1)
            before = shop.postgres_cpu()
            load = run(_url(shop), "get", file, 2, connections=CONNECTIONS, seconds=seconds)
            cpu = 1000 * (shop.postgres_cpu() - before) / load.requests
            results.append(
                Grown(
                    case=case,
                    rows=rows,
                    rps=round(load.rps, 1),
                    p50_ms=round(load.p50_ms, 1),
                    p99_ms=round(load.p99_ms, 1),
                    postgres_cpu_s_per_1000=round(cpu, 3),
                )
            )
            report(f"{rows:,}: {case}: {load.rps:,.0f} a second")
    return results


def growth(seconds: float = SECONDS) -> int:
    """Measures both sizes; returns the exit status."""
    installed()
    small, large = (_measure(rows, seconds, lambda text: print(text, file=sys.stderr)) for rows in (SMALL, LARGE))
    save((*small, *large), RESULT)
    head = ("case", f"{SMALL:,}: requests/s", "PostgreSQL CPU s per 1,000", f"{LARGE:,}: requests/s", "CPU", "ratio")
    rows = [
        (
            *(b.case, f"{a.rps:,.0f}", f"{a.postgres_cpu_s_per_1000:.2f}"),
            *(f"{b.rps:,.0f}", f"{b.postgres_cpu_s_per_1000:.2f}", f"{a.rps / b.rps:.2f}"),
        )
        for a, b in zip(small, large, strict=True)
    ]
    print(markdown(head, rows))
    return 0
