"""The public API against its model, for longer than `make test` does, and with other examples each time."""

import pytest
from hypothesis import settings

from tests.faults.shop import Servers
from tests.integration.test_model import SETTINGS, check_model


@pytest.mark.timeout(480)
def test_api_agrees_with_its_model_in_new_examples(servers: Servers) -> None:
    with servers.of["product"].database("product") as products, servers.of["order"].database("order") as orders:
        how = settings(SETTINGS, derandomize=False, print_blob=True, max_examples=150, stateful_step_count=50)
        check_model(products, orders, how)
