"""Measures what a large shop costs: `python -m bench growth`, or `make bench CASE=growth`.

It measures shops of 10,000 and of 1,000,000 products and orders: requests through the edge, with their CPU seconds, and
the services' own statements, with the buffers that they read. A page must cost the same however far in the list it is,
and however many rows there are.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg

from bench.bench_shop import BenchShop, running
from bench.data import fill_orders, fill_products, fill_reservations, hold_id, order_id, product_id, vacuum
from bench.load import Kind, installed, run
from bench.report import check, section, write
from bench.statements import PAGE, Statement, deep, measure
from bench.table import markdown, save
from local.settings import LOOPBACK, REPOSITORY
from product.listing import ProductQuery

RESULT = REPOSITORY / "build" / "bench-growth.json"
NAME = "growth"
"""The name of the place in the documentation."""

SMALL, LARGE = 10_000, 1_000_000
OPEN_ORDERS = 5_000
"""Orders that are not finished: as many in the large shop as in the small one."""

CONNECTIONS = 8
SECONDS = 2
ROUNDS = 3
"""Rounds of each kind of request. The cheapest one counts, since other work on the machine can only add CPU seconds."""


MAX_RATIO = 1.2
"""How many times the cost of the small shop the large one may cost."""

SEARCH = "search a SKU"
GROWS = {SEARCH: "the index has more products for each three letters; those that have all of them are read"}
"""Requests that must cost more in a larger shop, and why."""

OPTIONS = {"max_wal_size": "8GB"}
"""So that no checkpoint after the loading disturbs the measurement."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One kind of request at one size. CPU seconds are those of 1,000 requests."""

    case: str
    rows: int
    rps: float
    p50_ms: float
    shop_cpu_s: float
    """Of all processes, including PostgreSQL."""
    postgres_cpu_s: float
    grows: str
    """Why it costs more in a larger shop; empty if it must not."""


def _log(text: str) -> None:
    print(text, file=sys.stderr)


def _spread(rows: int, number: int = 1_000) -> range:
    """Returns numbers of rows that are spread evenly over all rows."""
    return range(1, rows + 1, max(1, rows // number))


def _requests(shop: BenchShop, rows: int) -> Mapping[str, tuple[Kind, Sequence[str]]]:
    products, orders = f"/api/v1/products?pageSize={PAGE}", f"/api/v1/orders?pageSize={PAGE}"
    with psycopg.connect(shop.postgres.service("product")) as connection:
        found = connection.execute(
            "SELECT create_time FROM product WHERE id = %s", (product_id(deep(rows)),)
        ).fetchone()
    assert found, "the row was written before"
    far = ProductQuery().cursor("").token((found[0], product_id(deep(rows))))
    return {
        "GET a product": ("get", [f"/api/v1/products/{product_id(n)}" for n in _spread(rows)]),
        "list products": ("get", [products]),
        "list products, page 10,000": ("get", [f"{products}&pageToken={far}"]),
        "list a category by price": ("get", [f"{products}&category=Category%20{n}&orderBy=price" for n in range(20)]),
        "search a common word": ("get", [f"{products}&search=walnut"]),
        SEARCH: ("get", [f"{products}&search=SKU-{n}" for n in _spread(rows) if n > rows // 10]),
        "GET an order": ("get", [f"/api/v1/orders/{order_id(n)}" for n in _spread(rows)]),
        "list orders": ("get", [orders]),
        "list a customer's orders": ("get", [f"{orders}&customerEmail=ada{n}@example.com" for n in range(100)]),
        "POST an order": ("order", [str(product_id(n)) for n in _spread(rows)]),
    }


def _load(shop: BenchShop, rows: int, seconds: int) -> list[Request]:
    results = []
    for number, (case, (kind, lines)) in enumerate(_requests(shop, rows).items()):
        file = shop.state / f"growth-{number}.txt"
        file.write_text("\n".join(lines) + "\n")
        run(_url(shop), kind, file, (ROUNDS + 1) * number, connections=CONNECTIONS, seconds=1)
        shop.settle()
        rounds = [_round(shop, kind, file, (ROUNDS + 1) * number + each, seconds) for each in range(1, ROUNDS + 1)]
        results.append(
            Request(
                case=case,
                rows=rows,
                rps=round(median(each.rps for each in rounds), 1),
                p50_ms=round(median(each.p50_ms for each in rounds), 1),
                shop_cpu_s=round(min(each.shop_cpu_s for each in rounds), 3),
                postgres_cpu_s=round(min(each.postgres_cpu_s for each in rounds), 3),
                grows=GROWS.get(case, ""),
            )
        )
        _log(f"{rows:,}: {case}: {results[-1].rps:,.0f} a second")
    return results


@dataclass(frozen=True)
class _Round:
    rps: float
    p50_ms: float
    shop_cpu_s: float
    postgres_cpu_s: float


def _round(shop: BenchShop, kind: Kind, file: Path, salt: int, seconds: int) -> _Round:
    before, postgres = _spent(shop), shop.postgres_cpu()
    load = run(_url(shop), kind, file, salt, connections=CONNECTIONS, seconds=seconds)
    shop.settle()
    thousands = load.requests / 1_000
    used = (_spent(shop) - before) / thousands
    return _Round(load.rps, load.p50_ms, used, (shop.postgres_cpu() - postgres) / thousands)


def _url(shop: BenchShop) -> str:
    return f"http://{LOOPBACK}:{shop.edge_ports[0]}"


def _spent(shop: BenchShop) -> float:
    return sum(map(shop.cpu, ("envoy", "product", "order"))) + shop.postgres_cpu()


def _prepare_statements(shop: BenchShop, rows: int) -> None:
    """Writes what a running shop may have: a backlog of messages and of expired holds, and old event logs to prune."""
    for name in shop.names(""):
        shop.kill(name)
    with psycopg.connect(shop.postgres.service("order")) as connection:
        connection.execute(
            "INSERT INTO outbox (order_id, action, due_time)"
            " SELECT id, 'CONFIRM', now() - interval '1 hour' FROM orders MAX_RATIO %s",
            (rows,),
        )
        connection.execute(
            "UPDATE order_event SET create_time = now() - interval '100 days'"
            " WHERE order_id IN (SELECT id FROM orders ORDER BY create_time MAX_RATIO 1000)"
        )
    vacuum(shop.postgres.service("order"), "outbox", "order_event")
    with psycopg.connect(shop.postgres.service("product")) as connection:
        connection.execute(
            "INSERT INTO reservation (id, state, items, expire_time)"
            " SELECT hold_id, 'HELD', '[]', now() - n * interval '1 second'"
            " FROM unnest(%s::uuid[]) WITH ORDINALITY AS given (hold_id, n)",
            ([hold_id(n) for n in range(rows // 5)],),
        )
    vacuum(shop.postgres.service("product"), "reservation")


def _measure(rows: int, seconds: int) -> tuple[list[Request], list[Statement]]:
    with running(lambda state: BenchShop(state, orders=1, edges=1, options=OPTIONS)) as shop:
        _log(f"{rows:,} products and orders: loading")
        product, order = shop.postgres.service("product"), shop.postgres.service("order")
        fill_products(product, rows)
        fill_reservations(product, rows, rows)
        fill_orders(order, rows, rows, ours=True, open_orders=OPEN_ORDERS)
        shop.wait()
        requests = _load(shop, rows, seconds)
        _prepare_statements(shop, rows)
        return requests, measure(product, order, rows, _log)


def growth(seconds: int = SECONDS, write_to: Path | None = None) -> int:
    """Measures both sizes. Returns the exit status: 1 if a statement costs more that should not."""
    installed()
    if write_to:
        check(write_to, NAME)
    (small, few), (large, many) = (_measure(rows, seconds) for rows in (SMALL, LARGE))
    save((*small, *large, *few, *many), RESULT)
    text = f"{_requests_table(small, large)}\n\n{_statements_table(few, many)}"
    print(text)
    if write_to:
        conditions = f"{CONNECTIONS} connections, the cheapest of {ROUNDS} rounds of {seconds} s"
        write(write_to, NAME, section("make bench CASE=growth", conditions, text))
    grown = [b.case for a, b in zip(few, many, strict=True) if not b.grows and not constant(a, b)]
    for case in grown:
        _log(f"this statement costs more in the larger shop: {case}")
    return 1 if grown else 0


def ratio(small: Statement, large: Statement) -> float:
    """Returns the most buffers that a page of the large shop reads, divided by those of the small shop's first page."""
    return max(large.buffers, large.deep_buffers or 0) / max(small.buffers, 1)


def constant(small: Statement, large: Statement) -> bool:
    """Returns whether a statement costs the same in both shops.

    Two more buffers are allowed for each search of an index: one for another level, which a few hundred times as many
    rows need, and one because the rows may happen to lie on two pages.
    """
    more = max(large.buffers, large.deep_buffers or 0) - small.buffers
    return ratio(small, large) <= MAX_RATIO or more <= 2 * large.searches


def _requests_table(small: Sequence[Request], large: Sequence[Request]) -> str:
    head = (
        *("request", f"{SMALL:,}: CPU s per 1,000", "of it PostgreSQL"),
        *(f"{LARGE:,}: CPU s per 1,000", "of it PostgreSQL", "ratio", "why it grows"),
    )
    rows = [
        (
            *(a.case, f"{a.shop_cpu_s:.2f}", f"{a.postgres_cpu_s:.2f}"),
            *(f"{b.shop_cpu_s:.2f}", f"{b.postgres_cpu_s:.2f}", f"{b.shop_cpu_s / a.shop_cpu_s:.2f}", b.grows),
        )
        for a, b in zip(small, large, strict=True)
    ]
    return markdown(head, rows)


def _statements_table(small: Sequence[Statement], large: Sequence[Statement]) -> str:
    head = (
        *("statement", f"{SMALL:,}: buffers", "ms", f"{LARGE:,}: buffers", "ms", "page 10,000: buffers", "ms"),
        *("ratio", "why it grows"),
    )
    rows = [
        (
            *(a.case, f"{a.buffers:,}", f"{a.ms:.2f}", f"{b.buffers:,}", f"{b.ms:.2f}"),
            *(
                "–" if b.deep_buffers is None else f"{b.deep_buffers:,}",
                "–" if b.deep_ms is None else f"{b.deep_ms:.2f}",
            ),
            *(f"{ratio(a, b):.2f}", b.grows),
        )
        for a, b in zip(small, large, strict=True)
    ]
    return markdown(head, rows)
