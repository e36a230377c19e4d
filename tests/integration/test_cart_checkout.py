"""CheckoutCart: what was seen is what is bought, one version of a cart is one order, and nothing is lost or free."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from google.type import money_pb2
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

from order.cart.domain import derive_order_id
from order.domain import Line
from order.stock import ReservationState
from tests.support.both import Both, both_shops
from tests.support.carts import HeldCart, guest_cart, quantities
from tests.support.order import A, B, FakeStock, OrderShop, order_shop, status_name
from tests.support.product import euros, refused


@pytest.fixture
async def both(order_database: str, product_database: str) -> AsyncIterator[Both]:
    async with both_shops(order_database, product_database) as both:
        yield both


@pytest.fixture
async def stock() -> FakeStock:
    return FakeStock()


@pytest.fixture
async def shop(order_database: str, stock: FakeStock) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, stock) as shop:
        yield shop


async def filled(shop: OrderShop) -> tuple[HeldCart, str]:
    """Returns a cart with two pieces of A at 1.50 EUR, and its etag."""
    cart = await guest_cart(shop.carts)
    return cart, (await cart.add(A, 2)).etag


async def orders_of(shop: OrderShop) -> list[order_pb2.Order]:
    return list((await shop.orders.ListOrders(order_pb2.ListOrdersRequest())).orders)


async def test_checkout_places_the_order_and_empties_the_cart(both: Both) -> None:
    watch = await both.products.create("Watch", price=euros(10), stock=5)
    strap = await both.products.create("Strap", price=euros(2.5), stock=5)
    cart = await guest_cart(both.shop.carts)
    await cart.add(watch.id, 2)
    seen = await cart.add(strap.id)
    order = await cart.checkout(seen.etag, seen.total)
    assert [(each.product_id, each.quantity, each.name) for each in order.items] == [
        (watch.id, 2, "Watch"),
        (strap.id, 1, "Strap"),
    ]
    assert order.total == euros(22.5)
    assert (order.customer.name, order.notes, status_name(order)) == ("Ada Lovelace", "Ring twice", "PLACED")
    assert order == await both.shop.get(order.id)
    empty = await cart.get()
    assert not empty.items
    assert empty.etag != seen.etag
    assert empty.expire_time.seconds - empty.update_time.seconds == 2 * 86_400
    await both.settle()
    assert await both.products.stock_of(watch.id) == 3


async def test_any_number_of_clicks_is_one_order(both: Both) -> None:
    watch = await both.products.create("Watch", stock=5)
    cart = await guest_cart(both.shop.carts)
    etag = (await cart.add(watch.id)).etag
    orders = await asyncio.gather(*(cart.checkout(etag) for _ in range(20)))
    assert len({order.id for order in orders}) == 1
    assert len(await orders_of(both.shop)) == 1
    assert (await cart.checkout(etag)).id == orders[0].id, "a retry returns the order, though the cart is empty"
    await cart.add(watch.id, 3)
    assert (await cart.checkout(etag)).id == orders[0].id, "also when the cart has been filled again"
    assert quantities(await cart.get()) == {watch.id: 3}
    await both.settle()
    assert await both.products.stock_of(watch.id) == 4


async def test_same_version_with_another_address_is_refused(shop: OrderShop) -> None:
    cart, etag = await filled(shop)
    await cart.checkout(etag)
    with refused() as refusal:
        await cart.checkout(etag, shipping_address="Elsewhere 2")
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")


async def test_changed_cart_is_not_ordered(shop: OrderShop, stock: FakeStock) -> None:
    cart, etag = await filled(shop)
    await cart.add(B)
    with refused() as refusal:
        await cart.checkout(etag)
    assert (refusal.code, refusal.reason) == ("ABORTED", "CART_CHANGED")
    assert not stock.calls
    assert quantities(await cart.get()) == {A: 2, B: 1}
    assert not await orders_of(shop)


async def test_item_added_during_a_checkout_is_neither_lost_nor_bought(shop: OrderShop, stock: FakeStock) -> None:
    cart, etag = await filled(shop)
    order_id = derive_order_id(UUID(cart.id), UUID(etag))
    async with shop.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM cart WHERE id = %s FOR UPDATE", (cart.id,))
        checkout = asyncio.create_task(cart.checkout(etag))
        while ("reserve", order_id) not in stock.calls:
            await asyncio.sleep(0.01)
        # The other tab adds an item after the stock is reserved, and before the order is written.
        await connection.execute(
            "UPDATE cart SET etag = gen_random_uuid(), items = jsonb_set(items, '{0,quantity}', '3') WHERE id = %s",
            (cart.id,),
        )
    with refused() as refusal:
        await checkout
    assert (refusal.code, refusal.reason) == ("ABORTED", "CART_CHANGED")
    assert quantities(await cart.get()) == {A: 3}
    assert stock.state(str(order_id)) is ReservationState.RELEASED
    assert not await orders_of(shop)
    order = await cart.checkout((await cart.get()).etag)
    assert order.items[0].quantity == 3


async def test_higher_price_than_shown_is_refused_and_writes_nothing(both: Both) -> None:
    watch = await both.products.create("Watch", price=euros(10), stock=5)
    cart = await guest_cart(both.shop.carts)
    seen = await cart.add(watch.id, 2)
    await both.products.update(watch.id, "price", price=euros(12))
    with refused() as refusal:
        await cart.checkout(seen.etag, seen.total)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PRICE_CHANGED")
    assert refusal.metadata == {
        "expected_total": "20.00",
        "total": "24.00",
        "expected_currency": "EUR",
        "currency": "EUR",
    }
    assert await both.products.stock_of(watch.id) == 5
    again = await cart.get()
    assert again.etag == seen.etag, "the same version can still be ordered"
    assert (await cart.checkout(again.etag, again.total)).total == euros(24)


async def test_lower_price_than_shown_goes_through(both: Both) -> None:
    watch = await both.products.create("Watch", price=euros(10))
    cart = await guest_cart(both.shop.carts)
    seen = await cart.add(watch.id, 2)
    await both.products.update(watch.id, "price", price=euros(8))
    assert (await cart.checkout(seen.etag, seen.total)).total == euros(16)


async def test_old_hold_at_a_higher_price_is_given_up(shop: OrderShop, stock: FakeStock) -> None:
    cart, etag = await filled(shop)
    order_id = derive_order_id(UUID(cart.id), UUID(etag))
    stock.price_micros = 2_000_000
    await stock.reserve(order_id, [], None)
    stock.reservations[order_id] = await stock.reserve(uuid4(), [Line(product_id=UUID(A), quantity=2)], None)
    with refused() as refusal:
        await cart.checkout(etag, euros(3))
    assert refusal.reason == "PRICE_CHANGED"
    assert stock.state(str(order_id)) is ReservationState.RELEASED
    present = await cart.get()
    assert present.etag != etag
    assert (await cart.checkout(present.etag, euros(4))).total == euros(4)


async def test_checkout_whose_client_has_left_does_not_begin(shop: OrderShop, stock: FakeStock) -> None:
    """The client may have tried again meanwhile, and been told that there is not enough stock."""
    cart, etag = await filled(shop)
    order_id = derive_order_id(UUID(cart.id), UUID(etag))
    request = cart_pb2.CheckoutCartRequest(id=cart.id, etag=etag)
    async with shop.connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE cart IN ACCESS EXCLUSIVE MODE")
        with refused() as refusal:
            await shop.carts.CheckoutCart(request, metadata=cart.metadata, timeout=0.3)
        assert refusal.code == "DEADLINE_EXCEEDED"
    # Another call of the same kind runs after what is left of the first one.
    assert (await cart.get()).etag == etag
    await asyncio.sleep(0.3)
    assert ("reserve", order_id) not in stock.calls


async def test_confirmed_stock_of_a_lost_order_is_left_to_reconcile(shop: OrderShop, stock: FakeStock) -> None:
    """The order database was restored to before the order. To release the stock would hide that it is gone."""
    cart, etag = await filled(shop)
    order_id = derive_order_id(UUID(cart.id), UUID(etag))
    stock.price_micros = 2_000_000
    await stock.reserve(order_id, [Line(product_id=UUID(A), quantity=2)], None)
    await stock.confirm(order_id)
    with refused() as refusal:
        await cart.checkout(etag, euros(3))
    assert refusal.reason == "PRICE_CHANGED"
    assert stock.state(str(order_id)) is ReservationState.CONFIRMED
    assert (await cart.get()).etag != etag


async def test_expired_attempt_gives_the_cart_a_new_etag(shop: OrderShop, stock: FakeStock) -> None:
    cart, etag = await filled(shop)
    order_id = derive_order_id(UUID(cart.id), UUID(etag))
    async with shop.connection() as connection:
        await connection.execute("INSERT INTO orders (id, status) VALUES (%s, 'EXPIRED')", (order_id,))
    with refused() as refusal:
        await cart.checkout(etag)
    assert (refusal.code, refusal.reason) == ("ABORTED", "ORDER_EXPIRED")
    present = await cart.get()
    assert present.etag != etag
    assert quantities(present) == {A: 2}
    assert (await cart.checkout(present.etag)).items[0].quantity == 2


async def test_released_reservation_gives_the_cart_a_new_etag(shop: OrderShop, stock: FakeStock) -> None:
    cart, etag = await filled(shop)
    await stock.release(derive_order_id(UUID(cart.id), UUID(etag)))
    with refused() as refusal:
        await cart.checkout(etag)
    assert (refusal.code, refusal.reason) == ("ABORTED", "ORDER_EXPIRED")
    assert (await cart.checkout((await cart.get()).etag)).items[0].quantity == 2


async def test_order_is_returned_while_the_product_service_is_away(shop: OrderShop, stock: FakeStock) -> None:
    cart, etag = await filled(shop)
    order = await cart.checkout(etag)
    stock.down = True
    assert (await cart.checkout(etag)).id == order.id
    stock.down = False
    again, etag = await filled(shop)
    stock.down = True
    with refused() as refusal:
        await again.checkout(etag)
    assert refusal.code == "UNAVAILABLE"
    stock.down = False
    assert (await again.checkout(etag)).id != order.id


async def test_sold_out_is_told_and_the_cart_keeps_its_items(both: Both) -> None:
    watch = await both.products.create("Watch", stock=1)
    first, second = await guest_cart(both.shop.carts), await guest_cart(both.shop.carts)
    etags = [(await each.add(watch.id)).etag for each in (first, second)]
    await first.checkout(etags[0])
    with refused() as refusal:
        await second.checkout(etags[1])
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
    assert quantities(await second.get()) == {watch.id: 1}
    await both.products.adjust(watch.id, 1)
    assert (await second.checkout(etags[1])).items[0].quantity == 1


async def test_etag_is_required_and_may_be_a_header(shop: OrderShop) -> None:
    cart, etag = await filled(shop)
    with refused() as refusal:
        await cart.checkout("")
    assert (refusal.code, list(refusal.fields)) == ("INVALID_ARGUMENT", ["etag"])
    with refused() as refusal:
        await cart.checkout("*")
    assert refusal.reason == "CART_CHANGED"
    by_header = HeldCart(cart.stub, cart.id, (*cart.metadata, ("if-match", f'"{etag}"')))
    assert (await by_header.checkout("")).items[0].quantity == 2


async def test_malformed_checkout_names_its_fields(shop: OrderShop) -> None:
    cart, etag = await filled(shop)
    with refused() as refusal:
        await cart.checkout(
            etag, money_pb2.Money(currency_code="euro", units=-1), customer={"email": "nobody"}, notes="x" * 2_001
        )
    assert refusal.code == "INVALID_ARGUMENT"
    assert set(refusal.fields) == {
        "customer.email",
        "expected_total.currency_code",
        "expected_total.units",
        "notes",
    }


async def test_empty_cart_cannot_be_ordered(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    with refused() as refusal:
        await cart.checkout((await cart.get()).etag)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "CART_EMPTY")
