"""Carts over gRPC, as a client has them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.type import money_pb2
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

if TYPE_CHECKING:
    from shop.cart.v1 import cart_pb2_grpc

ADDRESS = {
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "phone": "1"},
    "shipping_address": "Main Street 1\nTown",
    "payment_method": "CARD",
    "notes": "Ring twice",
}
"""What a customer writes at a checkout."""


@dataclass(frozen=True)
class HeldCart:
    """A cart, and what opens it."""

    stub: "cart_pb2_grpc.CartServiceAsyncStub"
    id: str
    metadata: tuple[tuple[str, str], ...]

    @property
    def secret(self) -> str:
        return dict(self.metadata)["cart-secret"]

    async def get(self) -> cart_pb2.Cart:
        return await self.stub.GetCart(cart_pb2.GetCartRequest(id=self.id), metadata=self.metadata)

    async def add(self, product_id: str, quantity: int = 1, request_id: str = "") -> cart_pb2.Cart:
        request = cart_pb2.AddCartItemRequest(
            id=self.id, product_id=product_id, quantity=quantity, request_id=request_id
        )
        return await self.stub.AddCartItem(request, metadata=self.metadata)

    async def set(self, product_id: str, quantity: int, etag: str = "") -> cart_pb2.Cart:
        request = cart_pb2.SetCartItemRequest(id=self.id, product_id=product_id, quantity=quantity, etag=etag)
        return await self.stub.SetCartItem(request, metadata=self.metadata)

    async def clear(self, etag: str = "") -> cart_pb2.Cart:
        return await self.stub.ClearCart(cart_pb2.ClearCartRequest(id=self.id, etag=etag), metadata=self.metadata)

    async def delete(self, etag: str = "") -> None:
        await self.stub.DeleteCart(cart_pb2.DeleteCartRequest(id=self.id, etag=etag), metadata=self.metadata)

    async def checkout(
        self, etag: str, expected_total: money_pb2.Money | None = None, **fields: Any
    ) -> order_pb2.Order:
        values: dict[str, Any] = {**ADDRESS, **fields}
        request = cart_pb2.CheckoutCartRequest(id=self.id, etag=etag, expected_total=expected_total, **values)
        return await self.stub.CheckoutCart(request, metadata=self.metadata)


async def guest_cart(stub: "cart_pb2_grpc.CartServiceAsyncStub") -> HeldCart:
    """Creates a guest's cart."""
    created = await stub.CreateCart(cart_pb2.CreateCartRequest())
    return HeldCart(stub, created.cart.id, (("cart-secret", created.secret),))


def quantities(cart: cart_pb2.Cart) -> dict[str, int]:
    """Returns the pieces of each product."""
    return {each.product_id: each.quantity for each in cart.items}


def problems(cart: cart_pb2.Cart) -> list[list[str]]:
    """Returns the reasons of each item's problems."""
    return [[problem.reason for problem in each.problems] for each in cart.items]
