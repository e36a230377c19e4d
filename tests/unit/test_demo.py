"""The demo: a plausible catalogue, a buyer, and a pace that depends on the order alone."""

from datetime import UTC, datetime
from uuid import UUID, uuid4, uuid5

import pytest
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from demo.__main__ import pace
from demo.buy import MAX_PRODUCTS, choose, summary
from demo.load import catalogue
from demo.simulate import POLL_INTERVAL, Pace
from product.parse import new_product
from runtime.cli import CommandError
from runtime.config import ConfigError, Env

Status = order_pb2.Order.Status


def test_catalogue_is_large_varied_and_unique() -> None:
    products = catalogue()
    assert len(products) >= 24
    assert len({each.category for each in products}) >= 5
    assert len({each.sku for each in products}) == len({each.slug for each in products}) == len(products)
    assert {each.price.currency_code for each in products} == {"EUR"}, "one order can have any of the products"
    assert sum(each.stock > 0 for each in products) >= 24


def test_every_demo_product_is_valid() -> None:
    for product in catalogue():
        new_product(product)


def test_order_duration_is_fixed_and_within_the_pace() -> None:
    """The longest leave time for a last step that waits for the simulator's next poll."""
    pace_ = Pace(10, 30)
    ids = [uuid5(UUID(int=0), str(number)) for number in range(500)]
    times = [pace_.duration(each) for each in ids]
    assert times == [Pace(10, 30).duration(each) for each in ids]
    assert 10 <= min(times) < 12
    assert 26 < max(times) <= 30 - 2 * POLL_INTERVAL
    assert {Pace(0, 0).duration(each) for each in ids} == {0}
    assert {Pace(5, 6).duration(each) for each in ids} == {5}


def test_last_step_is_due_at_the_end_of_the_duration() -> None:
    """All steps count from when the order was placed: delays do not add up."""
    order_id, placed = UUID(int=7), datetime(2026, 1, 1, tzinfo=UTC)
    times = [Pace(10, 30).due(order_id, each, placed) for each in (Status.PLACED, Status.PROCESSED, Status.DELIVERED)]
    assert placed < times[0] < times[1] < times[2]
    assert (times[2] - placed).total_seconds() == pytest.approx(Pace(10, 30).duration(order_id))


def test_pace_with_maximum_below_minimum_is_refused() -> None:
    with pytest.raises(ConfigError, match="SIMULATE_MAX_SECONDS"):
        pace(Env({"SIMULATE_MIN_SECONDS": "20", "SIMULATE_MAX_SECONDS": "10"}))


def offered(stock: int, currency: str = "EUR") -> product_pb2.Product:
    product = product_pb2.Product(id=str(uuid4()), stock=stock)
    product.price.currency_code = currency
    return product


def test_buyer_chooses_what_one_order_can_have() -> None:
    products = [offered(number % 3, currency) for number in range(30) for currency in ("EUR", "JPY")]
    sizes = set()
    for _ in range(200):
        chosen = choose(products)
        assert all(each.stock for each in chosen)
        assert len({each.price.currency_code for each in chosen}) == 1
        assert len({each.id for each in chosen}) == len(chosen)
        sizes.add(len(chosen))
    assert sizes == set(range(1, MAX_PRODUCTS + 1))


def test_buyer_chooses_a_single_product() -> None:
    only = offered(1)
    assert choose([offered(0), only]) == [only]


def test_buyer_reports_that_everything_is_sold_out() -> None:
    with pytest.raises(CommandError, match="no product is in stock"):
        choose([offered(0)])


def test_summary_of_an_order_has_what_was_bought() -> None:
    order = order_pb2.Order(id="7d8f", number="INV-20261128-000042")
    order.items.add(name="Mug", quantity=2)
    order.total.currency_code, order.total.units, order.total.nanos = "EUR", 25, 500_000_000
    assert summary(order) == 'order INV-20261128-000042 placed: 2 × "Mug"; total 25.50 EUR; id 7d8f'
