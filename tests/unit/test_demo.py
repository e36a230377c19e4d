"""The demo: a plausible catalogue, and a pace that anybody can compute."""

from datetime import UTC, datetime
from uuid import UUID, uuid5

import pytest
from shop.order.v1 import order_pb2

from demo.__main__ import pace
from demo.load import catalogue
from demo.simulate import LOOK_EVERY, Pace
from product.parse import new_product
from runtime.config import ConfigError, Env

Status = order_pb2.Order.Status


def test_the_catalogue_is_large_varied_and_unambiguous() -> None:
    products = catalogue()
    assert len(products) >= 24
    assert len({each.category for each in products}) >= 5
    assert len({each.sku for each in products}) == len({each.slug for each in products}) == len(products)
    assert {each.price.currency_code for each in products} == {"EUR"}, "anything can be ordered with anything"
    assert sum(each.stock > 0 for each in products) >= 24


def test_every_demo_product_is_one_that_the_shop_takes() -> None:
    for product in catalogue():
        new_product(product)


def test_an_order_takes_from_ten_to_thirty_seconds_always_the_same() -> None:
    """The longest leave room for a last step that waits for the simulator's next look."""
    speed = Pace(10, 30)
    ids = [uuid5(UUID(int=0), str(number)) for number in range(500)]
    times = [speed.whole(each) for each in ids]
    assert times == [Pace(10, 30).whole(each) for each in ids]
    assert 10 <= min(times) < 12
    assert 26 < max(times) <= 30 - 2 * LOOK_EVERY
    assert {Pace(0, 0).whole(each) for each in ids} == {0}
    assert {Pace(5, 6).whole(each) for each in ids} == {5}


def test_the_steps_of_an_order_end_with_its_time() -> None:
    """They are counted from its beginning: what one is late does not add up."""
    order_id, placed = UUID(int=7), datetime(2026, 1, 1, tzinfo=UTC)
    times = [Pace(10, 30).due(order_id, each, placed) for each in (Status.PLACED, Status.PROCESSED, Status.DELIVERED)]
    assert placed < times[0] < times[1] < times[2]
    assert (times[2] - placed).total_seconds() == pytest.approx(Pace(10, 30).whole(order_id))


def test_a_pace_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="SIMULATE_MAX_SECONDS"):
        pace(Env({"SIMULATE_MIN_SECONDS": "20", "SIMULATE_MAX_SECONDS": "10"}))
