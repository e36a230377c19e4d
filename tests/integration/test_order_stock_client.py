"""How order handles errors and delays of the product service, over real gRPC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import grpc
import pytest
from google.type import money_pb2

from order import stock as stock_module
from order.domain import Line
from order.product_calls import ProductCalls
from order.stock import Stock
from order.stock_client import StockClient
from runtime.errors import ApiError, database_full, query_timeout, with_reason
from runtime.prices import Price
from tests.support.access import credential
from tests.support.order import A, FakeStock, create_request, order_shop
from tests.support.product import euros, product_shop, refused
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


LINES = [Line(product_id=UUID(A), quantity=1)]


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[StockClient]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield StockClient(channel, ProductCalls(credential()))


@pytest.mark.parametrize("knows_batches", [True, False])
async def test_expected_total_reaches_product_service(knows_batches: bool) -> None:
    product = Product(knows_batches=knows_batches)
    largest = 5 * 10**18  # the most items, pieces and units of money
    async with serving(product) as address, client_of(address) as stock:
        await stock.reserve(uuid4(), LINES, None)
        await stock.reserve(uuid4(), LINES, None, Price(currency="EUR", micros=12_500_000))
        await stock.reserve(uuid4(), LINES, None, Price(currency="JPY", micros=largest * 1_000_000))
    assert not product.requests[0].HasField("expected_total")
    assert [each.expected_total for each in product.requests[1:]] == [
        money_pb2.Money(currency_code="EUR", units=12, nanos=500_000_000),
        money_pb2.Money(currency_code="JPY", units=largest),
    ]


@pytest.mark.parametrize("knows_batches", [True, False])
async def test_price_change_is_passed_on_with_its_metadata(knows_batches: bool) -> None:
    totals = {"expected_total": "12.50", "total": "13.00", "expected_currency": "EUR", "currency": "EUR"}
    refusal = with_reason(grpc.StatusCode.FAILED_PRECONDITION, "PRICE_CHANGED", "it costs more", **totals)
    product = Product(refusal=refusal, knows_batches=knows_batches)
    async with serving(product) as address, client_of(address) as stock:
        with pytest.raises(ApiError) as caught:
            await stock.reserve(uuid4(), LINES, None, Price(currency="EUR", micros=12_500_000))
    assert (caught.value.code, caught.value.text) == (refusal.code, refusal.text)
    assert caught.value.details == refusal.details


async def test_fake_stock_refuses_like_the_product_service(product_database: str) -> None:
    """The same requests have the same outcomes, word for word."""

    async def outcome(stock: Stock, line: Line, expected: Price, key: UUID) -> tuple[object, ...]:
        try:
            reservation = await stock.reserve(key, [line], None, expected)
        except ApiError as error:
            return error.code, error.text, error.details
        return reservation.state, [item.price_micros for item in reservation.items]

    async with product_shop(product_database) as products, client_of(products.address) as real:
        watch = await products.create(price=euros(1.5))
        line, fake = Line(product_id=UUID(watch.id), quantity=2), FakeStock()
        replayed = uuid4()
        cases = [
            (Price(currency="EUR", micros=3_000_000), replayed),
            (Price(currency="EUR", micros=2_990_000), replayed),
            (Price(currency="EUR", micros=2_990_000), uuid4()),
            (Price(currency="USD", micros=3_000_000), uuid4()),
            (Price(currency="EUR", micros=3_010_000), uuid4()),
        ]
        found = [(await outcome(real, line, *case), await outcome(fake, line, *case)) for case in cases]
    assert all(one == other for one, other in found), found
    assert [one[0] is grpc.StatusCode.FAILED_PRECONDITION for one, _ in found] == [False, False, True, True, False]
