"""The carts of the matrix: the owner's, those of guests, and what opens each."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from shop.cart.v1 import cart_pb2

from tests.support.auth_doors import Grpc, Headers, invoke
from tests.support.auth_matrix import CARTS, Identity, Mode, named

SECRET = "cart-secret"


@dataclass(frozen=True)
class KnownCart:
    """A cart with one item."""

    id: str
    etag: str
    headers: Headers
    """What opens it."""

    @property
    def secret(self) -> str:
        """The secret of a guest's cart; empty for a customer's."""
        return dict(self.headers).get(SECRET, "")


class Carts:
    """Makes carts, and looks at them."""

    def __init__(self, mode: Mode, orders: Grpc, headers: Mapping[Identity, Headers], product: str) -> None:
        """`headers` are what identities send, and `product` is what is put into a cart."""
        self._mode = mode
        self._orders = orders
        self._headers = headers
        self._product = product
        self.changing = asyncio.Lock()
        """Held from before a cart is looked up until a call has changed it: a customer has only one."""

    async def guests(self) -> KnownCart:
        """Makes a guest's cart. Where there are no guests, it is one that does not exist."""
        if not self._mode.guests:
            return KnownCart(str(uuid4()), str(uuid4()), ((SECRET, uuid4().hex),))
        made = await self._call("CreateCart", ())
        return await self._filled(made.cart.id, ((SECRET, made.secret),))

    async def of(self, identity: Identity) -> KnownCart:
        """Returns the cart of a customer. Where no tokens are verified, everybody is a guest."""
        if not self._mode.tokens:
            return await self.guests()
        mine = await self._call("GetMyCart", self._headers[identity])
        return await self._filled(mine.id, self._headers[identity])

    async def state(self, cart: KnownCart) -> object:
        """Returns what no refused call may change."""
        if cart.secret and not self._mode.guests:
            return None
        found = await self._call("GetCart", cart.headers, id=cart.id)
        return found.etag, [(item.product_id, item.quantity) for item in found.items]

    async def _filled(self, cart_id: str, headers: Headers) -> KnownCart:
        filled = await self._call("SetCartItem", headers, id=cart_id, product_id=self._product, quantity=1)
        return KnownCart(cart_id, filled.etag, headers)

    async def _call(self, name: str, headers: Headers, **fields: Any) -> Any:
        request = getattr(cart_pb2, f"{name}Request")(**fields)
        return await invoke(self._orders.channel, named(f"{CARTS}.{name}"), request, headers)


def secrets_of(cart: KnownCart, other: KnownCart, headers: Mapping[Identity, Headers]) -> dict[Identity, Headers]:
    """Returns what those send who send the secret of a cart.

    Args:
        cart: The guest's cart that they call for.
        other: Another guest's cart.
        headers: What the other identities send.
    """
    right = ((SECRET, cart.secret),)
    return {
        Identity.CART_SECRET: right,
        Identity.OTHER_SECRET: ((SECRET, other.secret),),
        Identity.WRONG_SECRET: ((SECRET, cart.secret[::-1]),),
        Identity.CUSTOMER_WITH_SECRET: (*headers[Identity.ANOTHER_CUSTOMER], *right),
        Identity.BAD_TOKEN_WITH_SECRET: (*headers[Identity.MALFORMED], *right),
    }


def with_secret_of(cart: KnownCart, headers: Headers) -> Headers:
    """Returns the same headers, with this cart's secret in place of another one."""
    return tuple((name, cart.secret if name == SECRET else value) for name, value in headers)
