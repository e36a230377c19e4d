"""The public API agrees with its model (tests/support/model.py and model_carts.py), call after call."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.eventually import eventually
from tests.support.invariants import check_stock
from tests.support.invariants_cart import check_carts
from tests.support.invariants_order import check_logs, settled
from tests.support.model_carts import ShopWithCarts
from tests.support.services import Services, services

SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    # The metaclass of HealthCheck iterates over its members, but its type stub does not say so.
    suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
)


async def check_all(both: Services) -> None:
    async with both.orders.connection() as orders, both.products.connection() as stock:
        await eventually(lambda: settled(orders, stock))
        await check_logs(orders)
        await check_carts(orders)
        await check_stock(stock)


def check_model(product_database: str, order_database: str, how: settings) -> None:
    with services(product_database, order_database) as both:

        class ThisShop(ShopWithCarts):
            pass

        ThisShop.both = both
        run_state_machine_as_test(ThisShop, settings=how)
        both.run(check_all(both))


def test_api_agrees_with_its_model(product_database: str, order_database: str) -> None:
    """The examples are always the same. `make test-faults` tries new ones, and shrinks those that fail."""
    how = settings(SETTINGS, max_examples=80, stateful_step_count=30, phases=[Phase.generate])
    check_model(product_database, order_database, how)
