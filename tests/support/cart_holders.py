"""Callers of CartService: what each of them shows, and every method that names a cart."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from shop.cart.v1 import cart_pb2

from tests.support.callers import Metadata
from tests.support.oidc import Provider
from tests.support.order import A, OrderShop

DETAILS: dict[str, Any] = {
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
    "shipping_address": "12 St James's Square, London",
}


@dataclass(frozen=True)
class Holder:
    """Calls CartService with what the caller has."""

    carts: Any
    metadata: Metadata = ()

    def with_secret(self, *secrets: str) -> "Holder":
        return replace(self, metadata=(*self.metadata, *(("cart-secret", each) for each in secrets)))

    def call(self, method: str, **fields: Any) -> Awaitable[Any]:
        request = getattr(cart_pb2, f"{method}Request")(**fields)
        called: Awaitable[Any] = getattr(self.carts, method)(request, metadata=self.metadata)
        return called

    async def filled(self) -> cart_pb2.Cart:
        """Returns the caller's own cart with one item."""
        mine = await self.call("GetMyCart")
        filled: cart_pb2.Cart = await self.call("SetCartItem", id=mine.id, product_id=A, quantity=2)
        return filled

    async def new(self) -> tuple[cart_pb2.Cart, "Holder"]:
        """Makes a guest's cart with one item. Returns it with the holder of its secret."""
        made = await self.call("CreateCart")
        holder = self.with_secret(made.secret)
        return await holder.call("SetCartItem", id=made.cart.id, product_id=A, quantity=1), holder


CALLS: dict[str, Callable[[Holder, str, str], Awaitable[Any]]] = {
    "GetCart": lambda holder, cart, _: holder.call("GetCart", id=cart),
    "AddCartItem": lambda holder, cart, _: holder.call("AddCartItem", id=cart, product_id=A, quantity=1),
    "SetCartItem": lambda holder, cart, etag: holder.call("SetCartItem", id=cart, product_id=A, etag=etag),
    "ClearCart": lambda holder, cart, etag: holder.call("ClearCart", id=cart, etag=etag),
    "CheckoutCart": lambda holder, cart, etag: holder.call("CheckoutCart", id=cart, etag=etag, **DETAILS),
    "DeleteCart": lambda holder, cart, etag: holder.call("DeleteCart", id=cart, etag=etag),
}
"""Every method that names a cart."""


@dataclass(frozen=True)
class Shop:
    """An order service, and whoever calls it."""

    service: OrderShop
    provider: Provider | None = None

    @property
    def guest(self) -> Holder:
        return Holder(self.service.carts)

    def customer(self, subject: str = "ada", **claims: Any) -> Holder:
        assert self.provider
        token = self.provider.token(subject, **claims)
        return replace(self.guest, metadata=(("authorization", f"Bearer {token}"),))

    @property
    def staff(self) -> Holder:
        return self.customer("sam", staff=True)

    async def rows(self) -> list[Any]:
        """Returns all carts and orders, as they are stored."""
        async with self.service.connection() as connection:
            query = "SELECT cart::text FROM cart UNION ALL SELECT id::text FROM orders ORDER BY 1"
            return await (await connection.execute(query)).fetchall()

    async def expire(self, cart_id: str) -> None:
        async with self.service.connection() as connection:
            await connection.execute("UPDATE cart SET expire_time = now() WHERE id = %s", [cart_id])
