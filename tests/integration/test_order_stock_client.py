"""How order handles errors and delays of the product service, over real gRPC."""

from uuid import uuid4

import grpc
import pytest

from order import stock as stock_module
from runtime.errors import database_full, query_timeout
from tests.support.order import create_request, order_shop
from tests.support.product import refused
from tests.support.stock_server import Product, serving


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "UNAVAILABLE"),
        (grpc.StatusCode.UNIMPLEMENTED, "UNAVAILABLE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    ],
)
@pytest.mark.parametrize("knows_batches", [True, False])
async def test_product_errors_do_not_leak_to_clients(
    order_database: str, code: grpc.StatusCode, answer: str, knows_batches: bool
) -> None:
    product = Product(code, knows_batches=knows_batches)
    async with serving(product) as address, order_shop(order_database, address) as shop:
        with refused() as error:
            await shop.create()
        assert error.code == answer
        assert "SQLSTATE" not in error.message


@pytest.mark.parametrize(("knows_batches", "as_a_whole"), [(True, True), (True, False), (False, False)])
async def test_slow_or_full_product_database_is_reported(
    order_database: str, knows_batches: bool, as_a_whole: bool
) -> None:
    for refusal, answer in (
        (query_timeout("it took too long"), ("DEADLINE_EXCEEDED", "QUERY_TIMEOUT", None)),
        (database_full("it is full"), ("RESOURCE_EXHAUSTED", "DATABASE_FULL", 30)),
    ):
        product = Product(knows_batches=knows_batches, as_a_whole=as_a_whole)
        async with serving(product) as address, order_shop(order_database, address) as shop:
            key = str(uuid4())
            order = await shop.create(request_id=key)
            product.refusal = refusal
            with refused() as error:
                await shop.create()
            assert (error.code, error.reason, error.retry_after) == answer
            assert error.message.endswith("nothing was ordered")
            assert product.calls.count("BatchReserveStock") == 2
            assert product.calls.count("ReserveStock") == (0 if knows_batches else 2)
            assert (await shop.create(request_id=key)).id == order.id, "an order that is there is the answer"


@pytest.mark.parametrize("knows_batches", [True, False])
async def test_client_deadline_reaches_product_service(order_database: str, knows_batches: bool) -> None:
    product = Product(knows_batches=knows_batches)
    async with serving(product) as address, order_shop(order_database, address) as shop:
        order = await shop.orders.CreateOrder(create_request(), timeout=2)
        await shop.create()
    first, second = product.deadlines
    assert 1 < first <= 2.1
    assert 4 < second < stock_module.RESERVE_TIMEOUT + 0.5
    assert (order.total.units, order.total.nanos) == (1, 5_000)


async def test_late_product_response_is_unavailable(order_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_module, "RESERVE_TIMEOUT", 0.3)
    async with serving(Product(delay=2)) as address, order_shop(order_database, address) as shop:
        with refused() as error:
            await shop.create()
        assert (error.code, error.message) == ("UNAVAILABLE", "the product service is unavailable")
