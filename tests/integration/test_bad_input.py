"""Input that no honest client sends is refused by name: nothing of it is an internal error."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.type import money_pb2
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2, stock_pb2

from tests.support.access import internal_channel
from tests.support.order import A, FakeStock, order_shop
from tests.support.product import euros, product_shop, refusal_of, refused, reserve_request

NOT_UTF_8 = b"\x0a\x01\xff"
"""A message whose first field is a text that is none."""

TRUNCATED = b"\x0a\x7fx"


async def raw(address: str, method: str, request: bytes, *, streams: bool = False) -> Any:
    async with internal_channel(address) as channel:
        if streams:
            stream: Any = channel.unary_stream(method)
            return [each async for each in stream(request)]
        unary: Any = channel.unary_unary(method)
        return await unary(request)


@pytest.mark.parametrize("request_", [NOT_UTF_8, TRUNCATED])
async def test_bytes_that_are_no_message_are_invalid_argument(product_database: str, request_: bytes) -> None:
    """Where gRPC parses by itself, the answer is UNKNOWN with the exception's name."""
    async with product_shop(product_database) as shop:
        with refused() as error:
            await raw(shop.address, "/shop.product.v1.ProductService/GetProduct", request_)
        assert error.what.code == "INVALID_ARGUMENT"
        assert "Error" not in error.what.message


@pytest.mark.parametrize("streams", [True, False])
async def test_invalid_utf8_is_refused_by_orders_and_streams(order_database: str, streams: bool) -> None:
    method = f"/shop.order.v1.OrderService/{'StreamOrderStatus' if streams else 'GetOrder'}"
    async with order_shop(order_database, FakeStock()) as shop:
        with refused() as error:
            await raw(shop.address, method, NOT_UTF_8, streams=streams)
        assert error.what.code == "INVALID_ARGUMENT"


async def test_bytes_that_are_no_cart_request_are_invalid_argument(order_database: str) -> None:
    async with order_shop(order_database, FakeStock()) as shop:
        for method in cart_pb2.DESCRIPTOR.services_by_name["CartService"].methods:
            # A request without fields skips a text that it does not know.
            for request in (TRUNCATED, NOT_UTF_8) if method.input_type.fields else (TRUNCATED,):
                with refused() as error:
                    await raw(shop.address, f"/shop.cart.v1.CartService/{method.name}", request)
                assert (error.code, "Error" in error.message) == ("INVALID_ARGUMENT", False), method.name


BAD_CARTS: dict[str, tuple[Message, set[str]]] = {
    "nothing at all": (cart_pb2.AddCartItemRequest(), {"id", "product_id", "quantity"}),
    "no quantity": (cart_pb2.AddCartItemRequest(id=A, product_id=A), {"quantity"}),
    "pieces to take away": (cart_pb2.AddCartItemRequest(id=A, product_id=A, quantity=-1), {"quantity"}),
    "too many pieces": (cart_pb2.AddCartItemRequest(id=A, product_id=A, quantity=100_000_001), {"quantity"}),
    "a key that is none": (cart_pb2.AddCartItemRequest(id=A, product_id=A, quantity=1, request_id="x"), {"request_id"}),
    "less than none": (cart_pb2.SetCartItemRequest(id=A, product_id=A, quantity=-1), {"quantity"}),
    "a long etag": (cart_pb2.ClearCartRequest(id=A, etag="x" * 101), {"etag"}),
    "no secret": (cart_pb2.MergeCartRequest(cart_id=A), {"secret"}),
    "a long secret": (cart_pb2.MergeCartRequest(cart_id=A, secret="x" * 101), {"secret"}),
    "no etag": (cart_pb2.CheckoutCartRequest(id=A), {"etag"}),
    "everything": (
        cart_pb2.CheckoutCartRequest(
            id="x",
            etag="x" * 101,
            customer=order_pb2.Customer(name="x" * 201, email="x"),
            shipping_address="\u202e",
            payment_method="x\ny",
            notes="x" * 2001,
            expected_total=money_pb2.Money(currency_code="x", units=-1),
        ),
        {"id", "etag", "customer.name", "customer.email", "shipping_address", "payment_method", "notes"}
        | {"expected_total.currency_code", "expected_total.units"},
    ),
}


async def test_bad_cart_request_names_its_fields(order_database: str) -> None:
    """And repeats nothing of it."""
    async with order_shop(order_database, FakeStock()) as shop:
        for what, (request, fields) in BAD_CARTS.items():
            with refused() as error:
                await getattr(shop.carts, type(request).__name__.removesuffix("Request"))(request)
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", fields), what
            assert "x" * 100 not in error.message, what


async def test_error_about_fifty_bad_items_is_delivered(order_database: str) -> None:
    items = [order_pb2.CreateOrderItem(product_id="x" * 100) for _ in range(50)]
    async with order_shop(order_database, FakeStock()) as shop:
        with refused() as error:
            await shop.orders.CreateOrder(order_pb2.CreateOrderRequest(items=items))
        assert error.what.code == "INVALID_ARGUMENT"
        assert "items[0].product_id" in error.what.fields
        assert error.what.message.endswith(" more")


async def test_malformed_ids_are_not_duplicates(order_database: str) -> None:
    items = [order_pb2.CreateOrderItem(product_id="?", quantity=1) for _ in range(2)]
    async with order_shop(order_database, FakeStock()) as shop:
        with refused() as error:
            await shop.orders.CreateOrder(order_pb2.CreateOrderRequest(items=items))
        assert "duplicate" not in error.what.message


async def test_a_batch_full_of_bad_requests_is_refused_one_by_one(product_database: str) -> None:
    """In an answer that arrives, and without harm to the one that is good."""
    async with product_shop(product_database) as shop:
        product = await shop.create()
        bad = [reserve_request({f"{n:x>50}": 0 for n in range(50)}, "\u4e2d") for _ in range(63)]
        requests = [*bad, reserve_request({product.id: 1})]
        answer = await shop.stock.BatchReserveStock(stock_pb2.BatchReserveStockRequest(requests=requests))
        assert answer.results[63].reservation.state == stock_pb2.Reservation.HELD
        assert {each.error.code for each in answer.results[:63]} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}
        assert answer.results[0].error.message.startswith("reservation_id: must be a UUID")
        assert answer.results[0].error.message.endswith(" more")


@pytest.mark.parametrize("method", ["BatchReserveStock", "BatchConfirmReservations", "BatchReleaseReservations"])
async def test_bytes_that_are_no_batch_are_invalid_argument(product_database: str, method: str) -> None:
    async with product_shop(product_database) as shop:
        with refused() as error:
            await raw(shop.address, f"/shop.product.v1.StockService/{method}", TRUNCATED)
        assert (error.what.code, "Error" in error.what.message) == ("INVALID_ARGUMENT", False)


async def test_many_shortages_fit_into_one_error(product_database: str) -> None:
    """Whatever letters their names have: the order service has to be able to read the answer."""
    async with product_shop(product_database) as shop:
        products = await asyncio.gather(*(shop.create("\u4e2d" * 200, stock=1) for _ in range(50)))
        with refused() as error:
            await shop.reserve({each.id: 1_000 for each in products})
        assert (error.what.code, error.what.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_STOCK")


async def test_order_is_limited_to_max_stock_after_returns(product_database: str) -> None:
    """Stock can come to more than the largest that can be set; one order takes no more than that."""
    async with product_shop(product_database) as shop:
        product = await shop.create(stock=100_000_000, price=euros(1_000_000_000))
        taken = await shop.reserve({product.id: 100_000_000})
        await shop.adjust(product.id, 100_000_000)
        await shop.release(taken.id)
        assert await shop.stock_of(product.id) == 200_000_000
        with refused() as error:
            await shop.reserve({product.id: 100_000_001})
        assert error.what.metadata["available"] == "100000000"
        reservation = await shop.reserve({product.id: 100_000_000})
        assert reservation.state == stock_pb2.Reservation.HELD


async def test_a_page_of_large_products_is_one_that_clients_accept(product_database: str) -> None:
    """And the list goes on where it ended."""
    async with product_shop(product_database) as shop:
        created = {(await shop.create(f"Gift {n}", description="\U0001f381" * 10_000)).id for n in range(100)}
        seen: list[str] = []
        token, pages = "", 0
        while token or not pages:
            page = await shop.products.ListProducts(product_pb2.ListProductsRequest(page_size=100, page_token=token))
            seen += [each.id for each in page.products]
            token, pages = page.next_page_token, pages + 1
        assert pages == 2
        assert len(seen) == 100
        assert set(seen) == created


async def test_a_refusal_can_be_read_as_a_whole(product_database: str) -> None:
    async with product_shop(product_database) as shop:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shop.stock.ReserveStock(reserve_request({"?": 1}))
        assert refusal_of(caught.value).fields.keys() == {"items[0].product_id"}
