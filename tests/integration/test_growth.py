"""A page reads as much however far in it is, and whatever there is beside it, by PostgreSQL's own count of buffers."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from typing import Any
from uuid import UUID

import psycopg
import pytest

from bench.data import fill_orders, fill_products, fill_reservations, order_id, product_id, vacuum
from bench.plans import Cost, Planned, Plans, describe
from order.domain import OrderQuery, Status
from order.store import OrderStore
from product.listing import ProductQuery, parse_order_by
from product.reservation import ReservationState
from product.stock_store import StockStore
from product.store import ProductStore
from runtime.pages import SortKey

SCAN = 40
"""Buffers of a page of 20 whose rows are all on pages of their own, and some of an index."""


async def cost(call: Callable[[], Awaitable[object]]) -> Cost:
    with pytest.raises(Planned) as planned:
        await call()
    return planned.value.cost


@pytest.fixture
def products(product_database: str) -> Iterator[Any]:
    fill_products(product_database, 20_000)
    with closing(Plans(product_database)) as plans:
        yield plans


def query(category: int, order_by: str) -> ProductQuery:
    return ProductQuery(category=f"Category {category}", sort=parse_order_by(order_by))


@pytest.mark.parametrize(
    "order_by", ["", "create_time", "name", "name desc", "price", "price desc", "star", "star desc"]
)
async def test_category_page_reads_its_own_rows_only(products: Any, order_by: str) -> None:
    """In the first category of these, all names are behind those of the others."""
    store = ProductStore(products, products)
    for number in range(20):
        found = await cost(lambda n=number: store.list(query(n, order_by), None, 21))  # type: ignore[misc]  # bound in the loop
        assert found.buffers <= SCAN, describe(found.plan)


@pytest.mark.parametrize("order_by", ["price", "star", "name"])
async def test_far_category_page_reads_its_own_rows_only(products: Any, product_database: str, order_by: str) -> None:
    store = ProductStore(products, products)
    key: Mapping[str, SortKey] = {"price": 400_000_000, "star": 3.0, "name": "walnut chair 19001"}
    for number in range(20):
        found = await cost(
            lambda n=number: store.list(query(n, order_by), (key[order_by], product_id(15_000)), 21)  # type: ignore[misc]  # bound in the loop
        )
        assert found.buffers <= SCAN, describe(found.plan)


async def test_far_page_of_reservations_reads_its_own_rows_only(product_database: str) -> None:
    """`reconcile` reads all of them, page by page."""
    fill_reservations(product_database, 1, 3_000)
    states = [ReservationState.HELD, ReservationState.CONFIRMED]
    with closing(Plans(product_database)) as plans:
        store = StockStore(plans)  # type: ignore[arg-type]  # in the place of a Database
        first = await cost(lambda: store.list(states, None, 500))
        far = await cost(lambda: store.list(states, (order_id(2_400),), 500))
    assert far.buffers <= first.buffers + 3


@pytest.fixture
def orders(order_database: str) -> Iterator[Any]:
    fill_orders(order_database, 1, 60_000, ours=True, open_orders=5_000)
    with closing(Plans(order_database)) as plans:
        yield plans


async def test_finished_orders_are_listed_past_open_ones(orders: Any) -> None:
    """The newest 5,000 are open: they are not read to find those that are finished."""
    store = OrderStore(orders)
    found = await cost(lambda: store.list(OrderQuery(status=Status.RECEIVED), None, 21))
    assert found.buffers <= SCAN


async def test_far_page_of_live_orders_reads_its_own_rows_only(order_database: str) -> None:
    fill_orders(order_database, 1, 3_000, ours=True)
    with closing(Plans(order_database)) as plans:
        store = OrderStore(plans)  # type: ignore[arg-type]  # in the place of a Database
        first = await cost(lambda: store.list_open(None, 500))
        far = await cost(lambda: store.list_open(order_id(2_400), 500))
    assert far.buffers <= first.buffers + 3


async def test_messages_are_read_once_for_all_expired_holds(orders: Any, order_database: str) -> None:
    with psycopg.connect(order_database) as connection:
        connection.execute(
            "INSERT INTO outbox (order_id, action) SELECT id, 'CONFIRM' FROM orders, generate_series(1, 5)"
        )
    vacuum(order_database, "outbox")
    ids: list[UUID] = [order_id(n) for n in range(59_001, 59_501)]
    found = await cost(lambda: OrderStore(orders).get_summaries(ids))
    assert found.buffers < 20_000
