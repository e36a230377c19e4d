"""The services' own statements on a shop of a given size, with their costs as PostgreSQL reports them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg

from bench.data import hold_id, order_id, product_id
from bench.plans import Cost, Planned, Plans, describe
from order.domain import Draft, Item, Line, OrderQuery, Status
from order.jobs.expired_holds import HOLD_PAGE_SIZE as EXPIRED_PAGE
from order.jobs.relay import BATCH_SIZE, CLAIM_LEASE, Outbox
from order.jobs.retention import Pruner
from order.live import cursor
from order.store import OrderStore
from product.domain import Content
from product.listing import ProductQuery, parse_order_by
from product.reservation import Hold, RequestedItem, ReservationState
from product.stock_store import StockStore
from product.store import ProductStore
from runtime.database import ONE_PROCESSOR
from runtime.pages import Position
from runtime.prices import Price

PAGE = 20
DEEP = 10_000
"""The number of the page that is compared with the first page, or the middle one if there are fewer."""

RECONCILE_PAGE = 500
"""Orders and reservations that `reconcile` reads at a time."""

Ask = Callable[[], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement at one size: its first page, and one that is far in the list."""

    case: str
    rows: int
    buffers: int
    ms: float
    searches: int
    """Searches of indexes, to read them or to write to them."""
    deep_buffers: int | None
    deep_ms: float | None
    grows: str
    """Why it costs more in a larger shop; empty if it must not."""


@dataclass(frozen=True)
class _Case:
    first: Ask
    far: Ask | None = None
    grows: str = ""


def deep(rows: int, page: int = PAGE) -> int:
    """Returns the number of the last row before the page that is far in the list."""
    return max(min(DEEP, rows // page // 2), 1) * page


_POSITIONS: Mapping[str, LiteralString] = {
    "": "SELECT create_time, id FROM product {where} ORDER BY create_time DESC, id DESC",
    "create_time": "SELECT create_time, id FROM product {where} ORDER BY create_time, id",
    "name": "SELECT name, id FROM product {where} ORDER BY lower(name), id",
    "name desc": "SELECT name, id FROM product {where} ORDER BY lower(name) DESC, id DESC",
    "price": "SELECT price_micros, id FROM product {where} ORDER BY price_micros, id",
    "price desc": "SELECT price_micros, id FROM product {where} ORDER BY price_micros DESC, id DESC",
    "star": "SELECT star, id FROM product {where} ORDER BY star, id",
    "star desc": "SELECT star, id FROM product {where} ORDER BY star DESC, id DESC",
}
"""Statements that list sort keys and ids, for each `order_by`."""

CATEGORY = "Category 7"
_SEARCHES = {
    "common word": ("walnut", ""),
    "two common words": ("walnut table", ""),
    "one SKU": ("SKU-7777", "all products that match the trigrams are read, and longer numbers match, too"),
    "rare word": ("777", "more products match: all of them are read, and sorted"),
    "absent word": ("zeppelin", "one more level of the index for each of its six trigrams"),
    "short word": ("zq", "too short for the index: every product is read; SEARCH_TIMEOUT ends it"),
    "common word and a short one": ("oak zq", "the short word is looked for in all that match the other one"),
}


def _product_cases(product: str, rows: int, plans: Any, searches: Any) -> Mapping[str, _Case]:
    store, stock = ProductStore(plans, searches), StockStore(plans)
    cases: dict[str, _Case] = {
        "GetProduct": _Case(lambda: store.get(product_id(rows // 2))),
        "BatchGetProducts, 50": _Case(lambda: store.batch_get(_ids(product_id, rows, 50))),
    }
    with psycopg.connect(product) as connection:
        for category in ("", CATEGORY):
            for order_by in _POSITIONS:
                name = f"ListProducts, {'a category ' if category else ''}by {order_by or 'create_time desc'}"
                cases[name] = _list_case(connection, store, category, order_by, rows)
    for name, (words, why) in _SEARCHES.items():
        cases[f"search: {name}"] = _Case(_listing(store, "", "", words=words), grows=why)
    hold = Hold(uuid4(), [RequestedItem(product_id(rows // 2), 1)], timedelta(minutes=1))
    priced = replace(hold, expected=Price("EUR", 10**12))
    held, confirmed, held_far = hold_id(1), order_id(rows // 2), hold_id(rows // 10)
    states = [ReservationState.HELD, ReservationState.CONFIRMED]
    with psycopg.connect(product) as connection:
        found = connection.execute("SELECT expire_time FROM reservation WHERE id = %s", (held_far,)).fetchone()
    assert found, "the row was written before"
    content = Content(name="x", slug="x", sku="x", category=CATEGORY, currency="EUR", price_micros=1)
    return cases | {
        "ListCategories": _Case(lambda: store.list_categories(None, 1_000)),
        "CreateProduct": _Case(lambda: store.create(uuid4(), content, 1, b"")),
        "AdjustStock": _Case(lambda: store.adjust(product_id(rows // 2), 1, uuid4(), None)),
        "ReserveStock": _Case(lambda: stock.reserve([hold])),
        "ReserveStock, with a total": _Case(lambda: stock.reserve([priced])),
        "ConfirmReservation": _Case(lambda: stock.confirm([held])),
        "ReleaseReservation": _Case(lambda: stock.release([confirmed])),
        "BatchGetOffers, 50": _Case(lambda: stock.batch_get_offers(_ids(product_id, rows, 50))),
        "BatchGetReservations, 50": _Case(lambda: stock.batch_get(_ids(order_id, rows, 50))),
        "ListExpiredReservations": _Case(
            lambda: stock.list_expired(None, EXPIRED_PAGE),
            lambda: stock.list_expired((found[0], held_far), EXPIRED_PAGE),
        ),
        "ListReservations": _Case(
            lambda: stock.list(states, None, RECONCILE_PAGE),
            lambda: stock.list(states, (order_id(deep(rows, RECONCILE_PAGE)),), RECONCILE_PAGE),
        ),
    }


def _ids(of: Callable[[int], UUID], rows: int, number: int) -> list[UUID]:
    return [of(1 + n * (rows // number)) for n in range(number)]


def _listing(store: ProductStore, category: str, order_by: str, after: Position | None = None, words: str = "") -> Ask:
    query = ProductQuery(words, category, parse_order_by(order_by))
    return lambda: store.list(query, after, PAGE + 1)


def _list_case(
    connection: psycopg.Connection[Any], store: ProductStore, category: str, order_by: str, rows: int
) -> _Case:
    where = "WHERE category = %(category)s" if category else ""
    query = _POSITIONS[order_by].format(where=where) + " OFFSET %(offset)s LIMIT 1"
    offset = deep(rows // 20 if category else rows) - 1
    found = connection.execute(query.encode(), {"category": category, "offset": offset}).fetchone()
    assert found, "there are so many rows"
    return _Case(_listing(store, category, order_by), _listing(store, category, order_by, (found[0], found[1])))


def _order_cases(order: str, rows: int, plans: Any, searches: Any, tailing: Plans) -> Mapping[str, _Case]:
    store, outbox = OrderStore(plans, searches), Outbox(plans)
    with psycopg.connect(order) as connection:
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row
        snapshot = row[0]

        def place(number: int) -> Any:
            return connection.execute(
                "SELECT create_time, id FROM orders WHERE id = %s", (order_id(number),)
            ).fetchone()

        far, far_of_customer = place(deep(rows)), place(rows // 2)
        received = place(deep(rows // 2) + rows // 2)

    def listing(after: Any = None, *, status: Status | None = None, email: str = "", number: str = "") -> Ask:
        query = OrderQuery(status=status, customer_email=email, number=number)
        return lambda: store.list(query, after, PAGE + 1)

    async def look() -> None:
        raise Planned(tailing.cost(cursor.READ, {"seen": snapshot, "limit": cursor.MAX_EVENTS + 1}))

    draft = Draft(
        lines=(Line(product_id=product_id(1), quantity=1),),
        customer_name="Ada",
        customer_email="ada@example.com",
        customer_phone="",
        shipping_address="London",
        payment_method="CARD",
        notes="",
    )
    items = [Item(product_id=str(product_id(1)), quantity=1, name="oak chair", price_micros=1)]
    ada = f"ada{rows // 200}@example.com"
    return {
        "GetOrder": _Case(lambda: store.find(order_id(rows // 2))),
        "CreateOrder": _Case(lambda: store.insert(uuid4(), "", draft, "EUR", items)),
        "ProcessOrder": _Case(lambda: store.move(order_id(1_000), Status.PROCESSED, None)),
        "CancelOrder": _Case(lambda: store.move(order_id(1_000), Status.CANCELLED, None)),
        "ListOrders": _Case(listing(), listing(far)),
        "ListOrders, open": _Case(listing(status=Status.PLACED)),
        "ListOrders, finished": _Case(listing(status=Status.RECEIVED), listing(received, status=Status.RECEIVED)),
        "ListOrders, a status that none has": _Case(listing(status=Status.DELIVERED)),
        "ListOrders, a customer's": _Case(listing(email=ada), listing(far_of_customer, email=ada)),
        "ListOrders, a customer's finished ones": _Case(listing(email=ada, status=Status.RECEIVED)),
        "ListOrders, a number": _Case(listing(number=f"INV-20260101-{rows // 2:08}")),
        "event logs of 100 orders": _Case(lambda: store.logs(_ids(order_id, rows, 100))),
        "orders not cancelled, for reconcile": _Case(
            lambda: store.list_open(None, RECONCILE_PAGE),
            lambda: store.list_open(order_id(deep(rows, RECONCILE_PAGE)), RECONCILE_PAGE),
        ),
        "orders of 500 expired holds, with a backlog": _Case(
            lambda: store.get_summaries(_ids(order_id, rows, 500)), grows="all messages that wait are read, once"
        ),
        "tombstones of 500 expired holds": _Case(lambda: store.insert_tombstones(_ids(order_id, rows, 500))),
        "the relay's claim, with a backlog": _Case(lambda: outbox.claim(BATCH_SIZE, CLAIM_LEASE)),
        "the tailer's look": _Case(look),
        "pruning of 200 histories": _Case(
            Pruner(plans, 90).step, grows="a small log is read whole instead; 26 a history, however large it is"
        ),
        "pruning, nothing is old": _Case(Pruner(plans, 200).step),
    }


@contextmanager
def _connections(*given: tuple[str, Mapping[str, str]]) -> Iterator[list[Plans]]:
    made = [Plans(conninfo, settings) for conninfo, settings in given]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def measure(product: str, order: str, rows: int, report: Callable[[str], None]) -> list[Statement]:
    """Measures all statements.

    Args:
        product: The product database.
        order: The order database.
        rows: How many products there are, and how many orders.
        report: Shows a line of progress.
    """
    every: Sequence[tuple[str, Mapping[str, str]]] = (
        (product, {}),
        (product, ONE_PROCESSOR),
        (order, {}),
        (order, ONE_PROCESSOR),
        (order, cursor.PLANNER_SETTINGS),
    )
    with _connections(*every) as (products, searches, orders, order_lists, tailing):
        cases = {
            **_product_cases(product, rows, products, searches),
            **_order_cases(order, rows, orders, order_lists, tailing),
        }
        return asyncio.run(_measure_all(cases, rows, products.indexes() | orders.indexes(), report))


async def _measure_all(
    cases: Mapping[str, _Case], rows: int, indexes: Mapping[str, int], report: Callable[[str], None]
) -> list[Statement]:
    return [await _measure(name, case, rows, indexes, report) for name, case in cases.items()]


async def _measure(
    name: str, case: _Case, rows: int, indexes: Mapping[str, int], report: Callable[[str], None]
) -> Statement:
    first = await _cost(case.first)
    far = await _cost(case.far) if case.far else None
    for page, cost in (("", first), (", far in", far)):
        if cost:
            report(f"{rows:,}: {name}{page}: {cost.buffers:,} buffers, {cost.ms:.2f} ms\n{describe(cost.plan, 1)}")
    return Statement(
        case=name,
        rows=rows,
        buffers=first.buffers,
        ms=round(first.ms, 3),
        searches=_searches((far or first).plan, indexes),
        deep_buffers=far.buffers if far else None,
        deep_ms=round(far.ms, 3) if far else None,
        grows=case.grows,
    )


async def _cost(ask: Ask) -> Cost:
    try:
        await ask()
    except Planned as planned:
        return planned.cost
    raise AssertionError("no statement was run")


def _searches(plan: Mapping[str, Any], indexes: Mapping[str, int]) -> int:
    """`indexes`: how many each table has."""
    below: Sequence[Mapping[str, Any]] = plan.get("Plans", ())
    written = 0
    if plan["Node Type"] == "ModifyTable" and plan["Operation"] in ("Insert", "Update"):
        written = round(indexes[plan["Relation Name"]] * below[0]["Actual Rows"] * below[0]["Actual Loops"])
    return written + int(plan.get("Index Searches", 0)) + sum(_searches(each, indexes) for each in below)
