"""`order reconcile` and carts: what a restored database has left of them."""

from collections.abc import AsyncIterator
from datetime import UTC
from uuid import UUID

import pytest
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

from order import stock as stock_module
from order.cart.domain import derive_order_id
from order.jobs.ordered_carts import OrderedCarts
from runtime.config import DatabaseConfig, Env
from runtime.database import Database
from tests.support.both import Both, both_shops
from tests.support.carts import HeldCart, guest_cart, quantities
from tests.support.product import refused


@pytest.fixture
async def both(order_database: str, product_database: str) -> AsyncIterator[Both]:
    async with both_shops(order_database, product_database) as both:
        yield both


async def filled(both: Both, product_id: str, quantity: int = 3) -> tuple[HeldCart, cart_pb2.Cart]:
    """Returns a guest's cart with some pieces of a product, and what it shows."""
    cart = await guest_cart(both.shop.carts)
    return cart, await cart.add(product_id, quantity)


async def restore_cart(both: Both, product_id: str, shown: cart_pb2.Cart) -> None:
    """Makes a cart what it was, as a restored table does."""
    await both.in_orders(
        "UPDATE cart SET etag = %s, update_time = %s, items = jsonb_build_array(jsonb_build_object('product_id',"
        " %s::text, 'quantity', %s::integer, 'name', 'Mug', 'currency', 'EUR', 'price_micros', 9500000)) WHERE id = %s",
        shown.etag,
        shown.update_time.ToDatetime(UTC),
        product_id,
        shown.items[0].quantity,
        shown.id,
    )


async def lose_order(both: Both, order: order_pb2.Order) -> None:
    """Removes an order, as a restored order database does."""
    await both.in_orders("DELETE FROM order_event WHERE order_id = %s", order.id)
    await both.in_orders("DELETE FROM orders WHERE id = %s", order.id)


async def test_carts_of_a_sound_shop_are_no_finding(both: Both) -> None:
    product = await both.products.create("Mug", stock=100)
    await filled(both, product.id)
    bought, shown = await filled(both, product.id)
    await bought.checkout(shown.etag)
    again = await bought.add(product.id, 2)
    await bought.checkout(again.etag)
    await bought.add(product.id, 5)
    await both.settle()
    compared = "compared: 2 reservations with stock, 2 orders not cancelled, 2 carts with items"
    assert await both.reconcile() == [compared]
    assert quantities(await bought.get()) == {product.id: 5}
    # An add that began before a checkout, and waited for it, has the checkout's time.
    await both.in_orders(
        "UPDATE cart SET update_time = (SELECT max(create_time) FROM orders WHERE cart_id = cart.id)"
        " WHERE items <> '[]' AND id IN (SELECT cart_id FROM orders)"
    )
    assert await both.reconcile("--dry-run") == [compared]


async def test_cart_with_the_items_of_its_order_is_emptied(both: Both) -> None:
    product = await both.products.create("Mug", stock=100)
    cart, shown = await filled(both, product.id)
    order = await cart.checkout(shown.etag)
    await both.settle()
    await restore_cart(both, product.id, shown)

    problem = f"cart {cart.id} still has the items of order {order.id} ({order.number})"
    compared = "compared: 1 reservations with stock, 1 orders not cancelled, 1 carts with items, 1 emptied"
    assert await both.reconcile("--dry-run") == [
        f"{problem}; to be emptied",
        compared,
        "this was a dry run; run the command without --dry-run to make these changes",
    ]
    assert quantities(await cart.get()) == {product.id: 3}, "nothing was changed"
    assert await both.reconcile() == [f"{problem}; emptied", compared]
    emptied = await cart.get()
    assert not emptied.items
    assert emptied.etag != shown.etag
    assert (await cart.checkout(shown.etag)).id == order.id, "its retry still returns the order"

    await cart.add(product.id, 1)
    assert len(await both.reconcile()) == 1, "what is added from then on is not ordered"
    assert quantities(await cart.get()) == {product.id: 1}


async def test_emptied_cart_is_none_again_where_the_clock_is_behind(both: Both) -> None:
    """The order is from the future then."""
    product = await both.products.create("Mug", stock=100)
    cart, shown = await filled(both, product.id)
    await cart.checkout(shown.etag)
    await both.settle()
    await restore_cart(both, product.id, shown)
    await both.in_orders("UPDATE orders SET create_time = now() + interval '1 hour'")
    assert (await both.reconcile())[0].endswith("; emptied")
    await cart.add(product.id, 1)
    assert len(await both.reconcile()) == 1
    assert quantities(await cart.get()) == {product.id: 1}


async def test_cart_that_changes_before_the_repair_is_kept(both: Both) -> None:
    """It is not the version that was ordered any more."""
    product = await both.products.create("Mug", stock=100)
    cart, shown = await filled(both, product.id)
    order = await cart.checkout(shown.etag)
    await restore_cart(both, product.id, shown)
    database = Database(DatabaseConfig.from_env(Env({"DATABASE_URL": both.shop.conninfo})), "test")
    await database.open()
    carts = OrderedCarts(database)
    (found,) = await carts.list(None, 10)
    assert (found.id, found.order_id) == (UUID(cart.id), UUID(order.id))
    await cart.add(product.id, 1)
    assert not await carts.empty(found.id)
    await database.close()
    assert quantities(await cart.get()) == {product.id: 4}


async def test_all_pages_are_read(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_module, "PAGE_SIZE", 2)
    product = await both.products.create("Mug", stock=100)
    for number in range(5):
        cart, shown = await filled(both, product.id)
        if number % 2:
            await cart.checkout(shown.etag)
            await restore_cart(both, product.id, shown)
    await both.settle()
    lines = await both.reconcile()
    assert lines[-1].endswith("5 carts with items, 2 emptied")


async def test_many_carts_need_force(both: Both) -> None:
    product = await both.products.create("Mug", stock=100)
    for _ in range(11):
        cart, shown = await filled(both, product.id)
        await cart.checkout(shown.etag)
        await restore_cart(both, product.id, shown)
    await both.settle()
    many = "11 of 11 orders would change (11 emptied), which is more than 10%"
    assert await both.reconcile() == [f"refused: {many}; list them with --dry-run, or make them with --force"]
    lines = await both.reconcile("--force")
    assert len([line for line in lines if line.endswith("; emptied")]) == 11


async def test_expired_and_empty_carts_are_not_compared(both: Both) -> None:
    product = await both.products.create("Mug", stock=100)
    await guest_cart(both.shop.carts)
    cart, shown = await filled(both, product.id)
    await cart.checkout(shown.etag)
    await both.settle()
    await restore_cart(both, product.id, shown)
    await both.in_orders("UPDATE cart SET expire_time = now() WHERE id = %s", cart.id)
    assert await both.reconcile() == ["compared: 1 reservations with stock, 1 orders not cancelled"]


async def test_restore_to_before_a_checkout_is_repaired(both: Both) -> None:
    """The cart has its items again, and its order is lost. The same version orders nothing; the next one does."""
    product = await both.products.create("Mug", stock=100)
    await both.shop.create({product.id: 10})
    cart, shown = await filled(both, product.id)
    lost = await cart.checkout(shown.etag)
    await both.settle()
    await lose_order(both, lost)
    await restore_cart(both, product.id, shown)

    assert await both.reconcile() == [
        f'order {lost.id} does not exist, but has stock: 3 × "Mug"; released',
        f'stock of product {product.id} "Mug": 3 released',
        "compared: 2 reservations with stock, 1 lost orders, 1 released, 1 orders not cancelled, 1 carts with items",
    ]
    assert await both.products.stock_of(product.id) == 90
    for reason in ("ORDER_EXPIRED", "CART_CHANGED"):
        with refused() as error:
            await cart.checkout(shown.etag)
        assert error.reason == reason
    now = await cart.get()
    assert quantities(now) == {product.id: 3}, "the items are still there"
    assert now.etag != shown.etag
    order = await cart.checkout(now.etag)
    assert order.id == str(derive_order_id(UUID(cart.id), UUID(now.etag)))
    await both.settle()
    assert await both.products.stock_of(product.id) == 87
    assert await both.reconcile() == ["compared: 2 reservations with stock, 2 orders not cancelled"]


async def test_checkout_before_the_repair_restores_the_order(both: Both) -> None:
    product = await both.products.create("Mug", stock=100)
    cart, shown = await filled(both, product.id)
    lost = await cart.checkout(shown.etag)
    await both.settle()
    await lose_order(both, lost)
    await restore_cart(both, product.id, shown)
    assert (await cart.checkout(shown.etag)).id == lost.id
    await both.settle()
    assert await both.reconcile() == ["compared: 1 reservations with stock, 1 orders not cancelled"]
    assert not (await cart.get()).items
    assert await both.products.stock_of(product.id) == 97


async def test_lost_reservation_of_a_cart_is_made(both: Both) -> None:
    """As that of any other order."""
    product = await both.products.create("Mug", stock=100)
    cart, shown = await filled(both, product.id)
    order = await cart.checkout(shown.etag)
    await both.settle()
    await both.lose_reservation(order.id)
    lines = await both.reconcile()
    assert lines[0] == f'order {order.id} ({order.number}) has lost its reservation: 3 × "Mug"; reserved'
    await both.settle()
    assert await both.products.stock_of(product.id) == 97
    assert (await cart.checkout(shown.etag)).id == order.id
