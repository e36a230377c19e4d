"""CreateOrder on the real product service: prices and names of the catalogue, once for each key, all or nothing."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from shop.product.v1 import product_pb2

from order.domain import Line, derive_id
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.order import A, FakeStock, OrderShop, create_request, eventually, order_shop, status_name
from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refusal_of, refused


@pytest.fixture
async def products(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


@pytest.fixture
async def shop(order_database: str, products: ProductShop) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, products.address, CALLER_HEADER="x-caller") as shop:
        yield shop


async def count(shop: OrderShop) -> int:
    async with shop.connection() as connection:
        row = await (await connection.execute("SELECT count(*) FROM orders")).fetchone()
        return int(row[0]) if row else 0


async def test_an_order_has_the_names_and_prices_of_the_catalogue(shop: OrderShop, products: ProductShop) -> None:
    watch = await products.create("Watch", price=euros(12.5))
    strap = await products.create("Strap", price=euros(0.33))
    order = await shop.create(
        {strap.id: 3, watch.id: 2},
        customer={"name": "Ada", "email": "ada@example.com", "phone": "1"},
        shipping_address="Main Street 1\nTown",
        payment_method="CARD",
        notes="Ring twice",
    )
    assert [(item.product_id, item.quantity, item.name) for item in order.items] == [
        (strap.id, 3, "Strap"),
        (watch.id, 2, "Watch"),
    ]
    assert [item.unit_price for item in order.items] == [euros(0.33), euros(12.5)]
    assert order.total == euros(25.99)
    assert status_name(order) == "PLACED"
    assert order.customer.name == "Ada"
    assert (order.shipping_address, order.payment_method, order.notes) == ("Main Street 1\nTown", "CARD", "Ring twice")
    assert re.fullmatch(r"INV-\d{8}-\d{6}", order.number)
    assert order.create_time == order.update_time
    assert await shop.get(order.id) == order
    assert await products.stock_of(watch.id) == 8


async def test_the_etag_comes_as_a_header_too(shop: OrderShop, products: ProductShop) -> None:
    call = shop.orders.CreateOrder(create_request({(await products.create()).id: 1}))
    order = await call
    assert dict(await call.initial_metadata())["etag"] == f'"{order.etag}"'


async def test_later_changes_of_a_product_leave_its_orders_alone(shop: OrderShop, products: ProductShop) -> None:
    product = await products.create("Watch")
    order = await shop.create({product.id: 1})
    product.price.CopyFrom(euros(99))
    product.name = "Clock"
    await products.products.UpdateProduct(product_pb2.UpdateProductRequest(product=product))
    await products.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product.id))
    assert await shop.get(order.id) == order


async def test_numbers_go_on_past_six_digits(shop: OrderShop, products: ProductShop) -> None:
    product = await products.create()
    async with shop.connection() as connection:
        await connection.execute("SELECT setval('order_number', 999999)")
    assert (await shop.create({product.id: 1})).number.endswith("-1000000")


class TestRefusals:
    """What cannot be ordered is refused in the product service's words, and nothing is written."""

    async def test_an_unknown_product(self, shop: OrderShop, products: ProductShop) -> None:
        known = await products.create()
        with refused() as error:
            await shop.create({known.id: 1, UNKNOWN: 1})
        assert (error.what.code, error.what.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        assert await count(shop) == 0
        assert await products.stock_of(known.id) == 10

    @pytest.mark.parametrize("quantity", [11, 2**31 - 1])
    async def test_more_than_the_stock(self, shop: OrderShop, products: ProductShop, quantity: int) -> None:
        product = await products.create()
        with refused() as error:
            await shop.create({product.id: quantity})
        assert (error.what.code, error.what.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
        assert await count(shop) == 0

    async def test_a_deleted_product(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        await products.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product.id))
        with refused() as error:
            await shop.create({product.id: 1})
        assert (error.what.code, error.what.reason) == ("FAILED_PRECONDITION", "PRODUCT_DELETED")

    async def test_two_currencies(self, shop: OrderShop, products: ProductShop) -> None:
        one = await products.create()
        other = await products.create("Clock", price={"currency_code": "USD", "units": 1})
        with refused() as error:
            await shop.create({one.id: 1, other.id: 1})
        assert (error.what.code, error.what.reason) == ("FAILED_PRECONDITION", "CURRENCY_MISMATCH")
        assert await count(shop) == 0

    async def test_malformed_input(self, shop: OrderShop) -> None:
        with refused() as error:
            await shop.create({}, request_id="1")
        assert error.what.code == "INVALID_ARGUMENT"
        assert set(error.what.fields) == {"items", "request_id"}
        with refused() as error:
            await shop.create({UNKNOWN: 1}, request_id="1")
        assert set(error.what.fields) == {"request_id"}
        with refused() as error:
            await shop.get("1")
        assert set(error.what.fields) == {"id"}

    async def test_an_unknown_order(self, shop: OrderShop) -> None:
        with refused() as error:
            await shop.get(UNKNOWN)
        assert (error.what.code, error.what.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")


class TestKeys:
    """A key orders once, whatever is retried when."""

    async def test_parallel_creates_with_one_key_are_one_order(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        key = str(uuid4())
        orders = await asyncio.gather(*(shop.create({product.id: 1}, request_id=key) for _ in range(20)))
        assert len({order.id for order in orders}) == 1
        assert all(order == orders[0] for order in orders)
        assert await count(shop) == 1
        assert await products.stock_of(product.id) == 9

    async def test_the_header_does_the_same_as_the_field(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        key = str(uuid4())
        header = (("idempotency-key", key),)
        first = await shop.create({product.id: 1}, request_id=key)
        again = await shop.orders.CreateOrder(create_request({product.id: 1}), metadata=header)
        assert again == first
        with refused() as error:
            await shop.orders.CreateOrder(create_request({product.id: 1}, request_id=str(uuid4())), metadata=header)
        assert error.what.code == "INVALID_ARGUMENT"

    async def test_a_replay_answers_the_order_as_it_is_now(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        key = str(uuid4())
        order = await shop.create({product.id: 1}, request_id=key)
        processed = await shop.move("PROCESSED", order.id)
        assert await shop.create({product.id: 1}, request_id=key) == processed

    async def test_a_replay_after_a_cancel_answers_the_cancelled_order(
        self, shop: OrderShop, products: ProductShop
    ) -> None:
        product = await products.create()
        key = str(uuid4())
        order = await shop.create({product.id: 4}, request_id=key)
        cancelled = await shop.move("CANCELLED", order.id)

        async def back() -> bool:
            return await products.stock_of(product.id) == 10

        await eventually(back)
        assert await shop.create({product.id: 4}, request_id=key) == cancelled
        assert await products.stock_of(product.id) == 10

    async def test_a_replay_is_answered_whatever_became_of_its_products(
        self, shop: OrderShop, products: ProductShop
    ) -> None:
        """Sold out, repriced in another currency, deleted: the order keeps what it had. Its items may come in any
        sequence."""
        first, second = await products.create(stock=3), await products.create("Strap", stock=1)
        key = str(uuid4())
        order = await shop.create({first.id: 3, second.id: 1}, request_id=key)
        dollars = euros(99)
        dollars.currency_code = "USD"
        for product in (first, second):
            changed = product_pb2.Product(id=product.id, price=dollars)
            await products.products.UpdateProduct(product_pb2.UpdateProductRequest(product=changed))
        await products.products.DeleteProduct(product_pb2.DeleteProductRequest(id=second.id))
        assert await shop.create({second.id: 1, first.id: 3}, request_id=key) == order

    @pytest.mark.parametrize("fields", [{"notes": "other"}, {"quantity": 2}])
    async def test_a_key_with_another_payload_is_refused(
        self, shop: OrderShop, products: ProductShop, fields: dict[str, Any]
    ) -> None:
        product = await products.create()
        key = str(uuid4())
        await shop.create({product.id: 1}, request_id=key)
        with refused() as error:
            await shop.create({product.id: fields.pop("quantity", 1)}, request_id=key, **fields)
        assert (error.what.code, error.what.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")

    async def test_keys_of_different_callers_do_not_meet(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        request = create_request({product.id: 1}, request_id=str(uuid4()))
        ids = {
            (await shop.orders.CreateOrder(request, metadata=(("x-caller", who),))).id for who in ("ada", "bob", "ada")
        }
        assert len(ids) == 2

    async def test_a_released_reservation_becomes_no_order(self, order_database: str) -> None:
        """It has no stock, and never will: as a retry of a cancelled order finds it that a restore has lost."""
        stock, key = FakeStock(), uuid4()
        await stock.reserve(derive_id("", key), [Line(product_id=UUID(A), quantity=1)], None)
        await stock.release(derive_id("", key))
        async with order_shop(order_database, stock) as shop:
            with refused() as error:
                await shop.create({A: 1}, request_id=str(key))
            assert (error.what.code, error.what.reason) == ("ABORTED", "ORDER_EXPIRED")
            assert await count(shop) == 0

    async def test_a_refused_order_can_be_retried_with_its_key(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create(stock=0)
        key = str(uuid4())
        with refused():
            await shop.create({product.id: 1}, request_id=key)
        await products.products.AdjustStock(product_pb2.AdjustStockRequest(id=product.id, delta=1))
        assert status_name(await shop.create({product.id: 1}, request_id=key)) == "PLACED"


async def test_twelve_clients_want_the_last_seven_pieces(shop: OrderShop, products: ProductShop) -> None:
    """Seven get one and five are told why; then everything adds up in both databases."""
    product = await products.create(stock=7)
    answers = await asyncio.gather(*(shop.create({product.id: 1}) for _ in range(12)), return_exceptions=True)
    errors = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert len(errors) == 5
    assert {refusal_of(error).reason for error in errors} == {"INSUFFICIENT_STOCK"}
    assert await products.stock_of(product.id) == 0
    async with shop.connection() as orders, products.connection() as stock:
        await eventually(lambda: settled(orders, stock))
        await check_logs(orders)
        await check_stock(stock)


class TestWithoutProduct:
    """While the product service is away, what exists can still be seen and moved on."""

    async def test_a_new_order_is_unavailable_and_a_replay_is_answered(self, order_database: str) -> None:
        stock = FakeStock()
        async with order_shop(order_database, stock) as shop:
            key = str(uuid4())
            order = await shop.create({A: 1}, request_id=key)
            stock.down = True
            assert await shop.create({A: 1}, request_id=key) == order
            with refused() as error:
                await shop.create({A: 1})
            assert (error.what.code, error.what.message) == ("UNAVAILABLE", "the product service is unavailable")
            with refused() as error:
                await shop.create({A: 2}, request_id=key)
            assert error.what.reason == "IDEMPOTENCY_KEY_REUSED"
            assert status_name(await shop.move("CANCELLED", order.id)) == "CANCELLED"

    async def test_order_is_ready_and_says_unavailable_where_nobody_listens(self, order_database: str) -> None:
        async with order_shop(order_database, "127.0.0.1:1") as shop:
            with refused() as error:
                await shop.create({A: 1})
            assert (error.what.code, error.what.message) == ("UNAVAILABLE", "the product service is unavailable")
