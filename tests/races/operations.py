"""The operations that race. Each makes one or more calls at the carts and the products of a round."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import uuid4

from google.protobuf import field_mask_pb2
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from tests.races.rounds import ANY_TOTAL, GONE, Call, Holder, Round, micros
from tests.support.product import euros

NAME = "Racing bicycle"
"""The name that a customer gives with an order."""


async def add(race: Round) -> None:
    """Adds pieces to a cart."""
    await _add(race, race.dice.choice(race.holders))


async def _add(race: Round, holder: Holder) -> cart_pb2.Cart | None:
    for _ in range(2):
        call = Call("add", holder.cart, product=race.dice.choice(race.products), quantity=race.pieces())
        request = cart_pb2.AddCartItemRequest(
            id=call.cart, product_id=call.product, quantity=call.quantity, request_id=call.key
        )
        cart = await race.repeatedly(call, "AddCartItem", request, holder)
        if cart or call.refusal != GONE or not await race.renew(holder):
            return cart
    return None


async def set_item(race: Round) -> None:
    """Sets the pieces of a product, sometimes only in the version that the client saw."""
    holder = race.dice.choice(race.holders)
    etag = _etag(race, holder)
    # Now and then, the product is removed.
    quantity = race.pieces() if race.dice.random() < 0.8 else 0
    call = Call("set", holder.cart, product=race.dice.choice(race.products), quantity=quantity)
    request = cart_pb2.SetCartItemRequest(id=call.cart, product_id=call.product, quantity=quantity, etag=etag)
    await race.repeatedly(call, "SetCartItem", request, holder)


async def clear(race: Round) -> None:
    """Removes everything from a cart, sometimes only from the version that the client saw."""
    holder = race.dice.choice(race.holders)
    etag = _etag(race, holder)
    await race.repeatedly(
        Call("clear", holder.cart), "ClearCart", cart_pb2.ClearCartRequest(id=holder.cart, etag=etag), holder
    )


def _etag(race: Round, holder: Holder) -> str:
    return holder.seen.etag if holder.seen and race.dice.random() < 0.5 else ""


async def merge(race: Round) -> None:
    """Merges a guest's cart into a customer's, who signs in on two devices."""
    guest = race.next_guest()
    customer = race.customers[0] if race.dice.random() < 0.8 else race.customers[-1]
    request = cart_pb2.MergeCartRequest(cart_id=guest.cart, secret=guest.secret)
    await race.repeatedly(Call("merge", customer.cart, guest=guest.cart), "MergeCart", request, customer)


async def checkout(race: Round) -> None:
    """Orders what a customer sees, with a double click. An empty cart is filled first."""
    if race.orders and race.dice.random() < 0.2:
        await _click(race, race.dice.choice(race.orders))  # a late retry
        return
    holder = race.dice.choice(race.holders)
    cart = holder.seen if race.dice.random() < 0.5 else None
    if cart is None or not cart.items:
        cart = await race.view(holder)
    if cart is not None and not cart.items:
        cart = await _add(race, holder)
    for _ in range(3):
        if cart is None or not cart.items:
            return
        seen = Call("checkout", cart.id, named_etag=cart.etag, holder=holder)
        seen.expected_micros = micros(cart.total) if cart.HasField("total") else ANY_TOTAL
        await race.pause()
        if await _click(race, seen) not in ("CART_CHANGED", "PRICE_CHANGED", "ORDER_EXPIRED"):
            return
        cart = await race.view(holder)


async def _click(race: Round, seen: Call) -> str:
    """Orders what was seen, once or several times at once. Returns why the first call was refused, if it was."""
    calls = [replace(seen, refusal="", order="") for _ in range(race.dice.choice((1, 2, 2, 3)))]
    await asyncio.gather(*(place_order(race, each) for each in calls))
    return calls[0].refusal


async def place_order(race: Round, call: Call) -> None:
    """Orders the version of a cart that a customer saw, at the total that they saw."""
    assert call.holder
    request = cart_pb2.CheckoutCartRequest(id=call.cart, etag=call.named_etag)
    request.customer.name = NAME
    if call.expected_micros != ANY_TOTAL:
        request.expected_total.CopyFrom(euros(call.expected_micros / 1_000_000))
    order: order_pb2.Order | None = await race.call(
        call, race.shop.carts, "CheckoutCart", request, call.holder.metadata
    )
    if order is not None:
        call.order = order.id
        call.items = {each.product_id: each.quantity for each in order.items}
        race.orders.append(call)


async def cancel(race: Round) -> None:
    """Cancels an order of a cart, at both services."""
    order = race.dice.choice(race.orders).order

    async def once() -> None:
        call = Call("cancel", order=order)
        await race.call(call, race.shop.orders, "CancelOrder", order_pb2.CancelOrderRequest(id=order), race.shop.staff)

    await asyncio.gather(once(), once())


async def expire(race: Round) -> None:
    """Lets the time of a cart pass, and deletes what has expired."""
    holder = race.dice.choice(race.everybody)
    await race.shop.expire(holder.cart)
    await race.pause()
    await race.shop.purge()
    race.calls.append(Call("expire", holder.cart))


async def reprice(race: Round) -> None:
    """Gives a product another price."""
    product = product_pb2.Product(id=race.products[0], price=euros(race.dice.randint(1, 9)))
    request = product_pb2.UpdateProductRequest(product=product, update_mask=field_mask_pb2.FieldMask(paths=["price"]))
    await race.call(Call("reprice"), [race.shop.products], "UpdateProduct", request, race.shop.staff)


async def delete_product(race: Round) -> None:
    """Deletes a product, and brings it back a little later."""
    products = [race.shop.products]
    request = product_pb2.DeleteProductRequest(id=race.products[0])
    await race.call(Call("delete product"), products, "DeleteProduct", request, race.shop.staff)
    await race.pause()
    again = product_pb2.UndeleteProductRequest(id=race.products[0])
    await race.call(Call("delete product"), products, "UndeleteProduct", again, race.shop.staff)


async def adjust_stock(race: Round) -> None:
    """Adds pieces to the stock of a product or takes them away, with a retry at the same time."""
    key, delta = str(uuid4()), race.pieces() % 64 * race.dice.choice((1, -1)) or 1
    request = product_pb2.AdjustStockRequest(id=race.products[0], delta=delta, request_id=key)

    async def once() -> None:
        call = Call("adjustStock", key=key, product=race.products[0], quantity=delta)
        await race.call(call, [race.shop.products], "AdjustStock", request, race.shop.staff)

    await asyncio.gather(*(once() for _ in range(race.dice.randint(1, 2))))


Operation = Callable[[Round], Awaitable[None]]

OPERATIONS: dict[str, Operation] = {
    "add": add,
    "set": set_item,
    "clear": clear,
    "merge": merge,
    "checkout": checkout,
    "cancel": cancel,
    "expire": expire,
    "reprice": reprice,
    "delete product": delete_product,
    "adjustStock": adjust_stock,
}
"""The operations by the names that the table has."""
