"""The public API agrees with a model of it, call after call, whatever a client does (tests/support/model.py)."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.model import Services, Shop, services
from tests.support.order import eventually

SETTINGS = settings(
    deadline=None, derandomize=True, database=None, print_blob=False, suppress_health_check=list(HealthCheck)
)


async def check_all(both: Services) -> None:
    async with both.orders.connection() as orders, both.products.connection() as stock:
        await eventually(lambda: settled(orders, stock))
        await check_logs(orders)
        await check_stock(stock)


def check_model(product_database: str, order_database: str, how: settings) -> None:
    with services(product_database, order_database) as both:

        class ThisShop(Shop):
            pass

        ThisShop.both = both
        run_state_machine_as_test(ThisShop, settings=how)
        both.run(check_all(both))


def test_the_api_does_what_its_model_says(product_database: str, order_database: str) -> None:
    """The same examples each time; `make test-faults` tries new ones, and takes the minutes to make a failing one
    small."""
    how = settings(SETTINGS, max_examples=80, stateful_step_count=30, phases=[Phase.generate])
    check_model(product_database, order_database, how)
