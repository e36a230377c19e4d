"""CreateOrder with the real product service: its prices and names, one order for each key, all items or none."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from shop.product.v1 import product_pb2

from order.domain import Line, derive_id
from tests.support.eventually import eventually
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.order import A, FakeStock, OrderShop, create_request, order_shop, status_name
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


async def has_stock(products: ProductShop, product_id: str, pieces: int) -> bool:
    return await products.stock_of(product_id) == pieces


async def test_order_has_names_and_prices_of_products(shop: OrderShop, products: ProductShop) -> None:
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


async def test_etag_is_sent_as_header_too(shop: OrderShop, products: ProductShop) -> None:
    call = shop.orders.CreateOrder(create_request({(await products.create()).id: 1}))
    order = await call
    assert dict(await call.initial_metadata())["etag"] == f'"{order.etag}"'


async def test_product_changes_do_not_change_orders(shop: OrderShop, products: ProductShop) -> None:
    product = await products.create("Watch")
    order = await shop.create({product.id: 1})
    product.price.CopyFrom(euros(99))
    product.name = "Clock"
    await products.products.UpdateProduct(product_pb2.UpdateProductRequest(product=product))
    await products.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product.id))
    assert await shop.get(order.id) == order


async def test_order_numbers_exceed_six_digits(shop: OrderShop, products: ProductShop) -> None:
    product = await products.create()
    async with shop.connection() as connection:
        await connection.execute("SELECT setval('order_number', 999999)")
    assert (await shop.create({product.id: 1})).number.endswith("-1000000")


class TestRefusals:
    """The product service's error reaches the client, and nothing is written."""

    async def test_unknown_product_is_refused(self, shop: OrderShop, products: ProductShop) -> None:
        known = await products.create()
        with refused() as error:
            await shop.create({known.id: 1, UNKNOWN: 1})
        assert (error.code, error.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
        assert await count(shop) == 0
        assert await products.stock_of(known.id) == 10

    @pytest.mark.parametrize("quantity", [11, 2**31 - 1])
    async def test_insufficient_stock_is_refused(self, shop: OrderShop, products: ProductShop, quantity: int) -> None:
        product = await products.create()
        with refused() as error:
            await shop.create({product.id: quantity})
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
        assert await count(shop) == 0

    async def test_deleted_product_is_refused(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        await products.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product.id))
        with refused() as error:
            await shop.create({product.id: 1})
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PRODUCT_DELETED")

    async def test_two_currencies_are_refused(self, shop: OrderShop, products: ProductShop) -> None:
        one = await products.create()
        other = await products.create("Clock", price={"currency_code": "USD", "units": 1})
        with refused() as error:
            await shop.create({one.id: 1, other.id: 1})
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CURRENCY_MISMATCH")
        assert await count(shop) == 0

    async def test_malformed_fields_are_named(self, shop: OrderShop) -> None:
        with refused() as error:
            await shop.create({}, request_id="1")
        assert error.code == "INVALID_ARGUMENT"
        assert set(error.fields) == {"items", "request_id"}
        with refused() as error:
            await shop.create({UNKNOWN: 1}, request_id="1")
        assert set(error.fields) == {"request_id"}
        with refused() as error:
            await shop.get("1")
        assert set(error.fields) == {"id"}

    async def test_unknown_order_is_not_found(self, shop: OrderShop) -> None:
        with refused() as error:
            await shop.get(UNKNOWN)
        assert (error.code, error.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")


class TestKeys:
    """A key is one order, however often it is sent."""

    async def test_concurrent_creates_with_one_key_are_one_order(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        key = str(uuid4())
        orders = await asyncio.gather(*(shop.create({product.id: 1}, request_id=key) for _ in range(20)))
        assert len({order.id for order in orders}) == 1
        assert all(order == orders[0] for order in orders)
        assert await count(shop) == 1
        assert await products.stock_of(product.id) == 9

    async def test_key_in_header_equals_key_in_field(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        key = str(uuid4())
        header = (("idempotency-key", key),)
        first = await shop.create({product.id: 1}, request_id=key)
        again = await shop.orders.CreateOrder(create_request({product.id: 1}), metadata=header)
        assert again == first
        with refused() as error:
            await shop.orders.CreateOrder(create_request({product.id: 1}, request_id=str(uuid4())), metadata=header)
        assert error.code == "INVALID_ARGUMENT"

    async def test_replay_returns_the_current_order(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        key = str(uuid4())
        order = await shop.create({product.id: 1}, request_id=key)
        processed = await shop.move("PROCESSED", order.id)
        assert await shop.create({product.id: 1}, request_id=key) == processed

    async def test_replay_of_cancelled_order_reserves_nothing(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        key = str(uuid4())
        order = await shop.create({product.id: 4}, request_id=key)
        cancelled = await shop.move("CANCELLED", order.id)

        await eventually(lambda: has_stock(products, product.id, 10))
        assert await shop.create({product.id: 4}, request_id=key) == cancelled
        assert await products.stock_of(product.id) == 10

    async def test_replay_succeeds_after_product_changes(self, shop: OrderShop, products: ProductShop) -> None:
        """The products are sold out, have another currency, and one is deleted. The items may be in any sequence."""
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
    async def test_key_with_different_request_is_refused(
        self, shop: OrderShop, products: ProductShop, fields: dict[str, Any]
    ) -> None:
        product = await products.create()
        key = str(uuid4())
        await shop.create({product.id: 1}, request_id=key)
        with refused() as error:
            await shop.create({product.id: fields.pop("quantity", 1)}, request_id=key, **fields)
        assert (error.code, error.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")

    async def test_same_key_of_other_caller_is_another_order(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create()
        request = create_request({product.id: 1}, request_id=str(uuid4()))
        ids = {
            (await shop.orders.CreateOrder(request, metadata=(("x-caller", who),))).id for who in ("ada", "bob", "ada")
        }
        assert len(ids) == 2

    async def test_released_reservation_places_no_order(self, order_database: str) -> None:
        """A retry finds it if a restored database has lost its cancelled order."""
        stock, key = FakeStock(), uuid4()
        await stock.reserve(derive_id("", key), [Line(product_id=UUID(A), quantity=1)], None)
        await stock.release(derive_id("", key))
        async with order_shop(order_database, stock) as shop:
            with refused() as error:
                await shop.create({A: 1}, request_id=str(key))
            assert (error.code, error.reason) == ("ABORTED", "ORDER_EXPIRED")
            assert await count(shop) == 0

    async def test_refused_order_can_be_retried_with_its_key(self, shop: OrderShop, products: ProductShop) -> None:
        product = await products.create(stock=0)
        key = str(uuid4())
        with refused():
            await shop.create({product.id: 1}, request_id=key)
        await products.products.AdjustStock(product_pb2.AdjustStockRequest(id=product.id, delta=1))
        assert status_name(await shop.create({product.id: 1}, request_id=key)) == "PLACED"


async def test_last_seven_pieces_are_sold_once(shop: OrderShop, products: ProductShop) -> None:
    """Seven of twelve clients get one. The stock adds up in both databases."""
    product = await products.create(stock=7)
    results = await asyncio.gather(*(shop.create({product.id: 1}) for _ in range(12)), return_exceptions=True)
    errors = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
    assert len(errors) == 5
    assert {refusal_of(error).reason for error in errors} == {"INSUFFICIENT_STOCK"}
    assert await products.stock_of(product.id) == 0
    async with shop.connection() as orders, products.connection() as stock:
        await eventually(lambda: settled(orders, stock))
        await check_logs(orders)
        await check_stock(stock)


class TestWithoutProduct:
    """While the product service is unavailable, orders can be read and moved."""

    async def test_replay_needs_no_product_service(self, order_database: str) -> None:
        stock = FakeStock()
        async with order_shop(order_database, stock) as shop:
            key = str(uuid4())
            order = await shop.create({A: 1}, request_id=key)
            stock.down = True
            assert await shop.create({A: 1}, request_id=key) == order
            with refused() as error:
                await shop.create({A: 1})
            assert (error.code, error.message) == ("UNAVAILABLE", "the product service is unavailable")
            with refused() as error:
                await shop.create({A: 2}, request_id=key)
            assert error.reason == "IDEMPOTENCY_KEY_REUSED"
            assert status_name(await shop.move("CANCELLED", order.id)) == "CANCELLED"

    async def test_order_is_ready_without_product_service(self, order_database: str) -> None:
        async with order_shop(order_database, "127.0.0.1:1") as shop:
            with refused() as error:
                await shop.create({A: 1})
            assert (error.code, error.message) == ("UNAVAILABLE", "the product service is unavailable")
