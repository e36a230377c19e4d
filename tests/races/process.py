"""An order service whose carts are read and then written: `python -m tests.races.process`.

It does what many carts do: it reads the cart, changes it in Python, and writes it back, without a lock, and whatever
version the cart has by then. The races must find that, or they prove nothing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, LiteralString
from uuid import UUID

from order import __main__ as service
from order.cart.checkout import CartCheckout, Purchase
from order.cart.domain import Action, Cart, Change, Changed, Holder, cart_empty
from order.cart.store import CartStore
from order.domain import Order
from order.writes import CartVersion, NewOrder, Unplaced, Writes
from runtime import cli
from runtime.access.caller import Caller
from runtime.database import Database

WRITE: LiteralString = """
    UPDATE cart SET items = %(items)s::jsonb, etag = gen_random_uuid(), update_time = now() WHERE id = %(id)s
    RETURNING id, owner, secret_hash, etag, items, create_time, update_time, expire_time
    """

place_with_version = Writes.insert_from_cart


async def change_all(store: CartStore, changes: Sequence[Change]) -> Sequence[Changed | None]:
    """Takes the place of `CartStore._change`."""
    return [await change_one(store, each) for each in changes]


async def change_one(store: Any, change: Change) -> Changed | None:
    (cart,) = await store._find([change.cart_id])
    if cart is None or not cart.is_held_by(change.holder):
        return None
    items = [vars(each) for each in cart.items]
    others = [each for each in items if each["product_id"] != str(change.product_id)]
    had = sum(each["quantity"] for each in items if each not in others)
    if change.action is Action.CLEAR:
        changed: list[dict[str, Any]] = []
    else:
        quantity = change.quantity + (had if change.action is Action.ADD else 0)
        changed = [*others, *([_item(change, quantity)] if quantity else [])]
    written = await store._database.fetch_one(
        "cart.write", WRITE, {"id": change.cart_id, "items": json.dumps(changed)}, Cart
    )
    return Changed(written) if written else None


def _item(change: Change, quantity: int) -> dict[str, Any]:
    assert change.offer
    return {
        "product_id": str(change.product_id),
        "quantity": quantity,
        "name": change.offer.name,
        "currency": change.offer.price.currency,
        "price_micros": change.offer.price.micros,
    }


async def place(checkout: Any, purchase: Purchase, holder: Holder, caller: Caller, timeout: float | None) -> Order:
    """Takes the place of `CartCheckout.place`: orders what is in the cart, whatever version the customer saw."""
    cart: Cart = await checkout.carts.get(purchase.cart_id, holder)
    if not cart.items:
        order: Order = await checkout._find_placed(purchase, cart_empty())
    else:
        reservation = await checkout.stock.reserve(purchase.order_id, cart.lines, timeout, purchase.expected)
        order = await checkout._write(purchase, cart, caller, reservation)
    return order


async def insert_from_cart(writes: Any, new: NewOrder) -> Order | Unplaced:
    """Takes the place of `Writes.insert_from_cart`: empties the cart, whatever version it has by now."""
    assert new.cart
    etag = await _present_etag(writes._database, new.cart.id)
    return await place_with_version(writes, replace(new, cart=CartVersion(new.cart.id, etag)))


async def _present_etag(database: Database, cart_id: UUID) -> UUID:
    query: LiteralString = """
        SELECT id, owner, secret_hash, etag, items, create_time, update_time, expire_time FROM cart WHERE id = %(id)s
        """
    cart = await database.fetch_one("cart.read", query, {"id": cart_id}, Cart)
    return cart.etag if cart else UUID(int=0)


if __name__ == "__main__":
    replacements: list[tuple[type, str, Any]] = [
        (CartStore, "_change", change_all),
        (CartCheckout, "place", place),
        (Writes, "insert_from_cart", insert_from_cart),
    ]
    for owner, name, replacement in replacements:
        assert callable(getattr(owner, name, None)), f"{owner.__name__} has no method {name}"
        setattr(owner, name, replacement)
    sys.exit(cli.run("order", lambda: service.serve(argparse.Namespace())))
