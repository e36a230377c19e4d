"""Converts carts to messages of the API."""

from shop.cart.v1 import cart_pb2

from order.cart.domain import CartView
from runtime.money import set_money
from runtime.times import set_timestamp


def cart_message(view: CartView) -> cart_pb2.Cart:
    """Returns a cart as a message."""
    cart = view.cart
    message = cart_pb2.Cart(id=str(cart.id), etag=str(cart.etag), stale=view.stale)
    for each in view.items:
        added = message.items.add(
            product_id=each.item.product_id, quantity=each.item.quantity, name=each.name, available=each.available
        )
        set_money(added.unit_price, each.price.currency, each.price.micros)
        set_money(added.added_unit_price, each.item.currency, each.item.price_micros)
        for problem in each.problems:
            added.problems.add(reason=problem.reason, message=problem.message)
    if view.total:
        set_money(message.total, view.total.currency, view.total.micros)
    set_timestamp(message.create_time, cart.create_time)
    set_timestamp(message.update_time, cart.update_time)
    set_timestamp(message.expire_time, cart.expire_time)
    return message
