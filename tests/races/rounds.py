"""A round: a few carts and products, the calls that race for them, and what each call was told."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import grpc
from shop.cart.v1 import cart_pb2

from order.cart.domain import hash_secret
from tests.races.shop import RaceShop
from tests.support.product import refusal_of

Metadata = tuple[tuple[str, str], ...]
Items = dict[str, int]
"""Pieces by product."""

TIMEOUT = 20.0
"""Seconds that a call may take."""

MAX_ATTEMPTS = 20
"""How often a call is tried that the shop does not answer, because it has too many, for example."""

UNANSWERED = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
"""The codes after which nobody knows what the call has done."""

GONE = "CART_NOT_FOUND"

ANY_TOTAL = -1
"""Stands for the total of a cart that has none, or is not known to have one."""

REFUSALS = {
    "add": {GONE, "PRODUCT_DELETED"},
    "set": {GONE, "PRODUCT_DELETED", "CART_CHANGED"},
    "clear": {GONE, "CART_CHANGED"},
    "merge": {GONE},
    "checkout": {
        GONE,
        "CART_CHANGED",
        "CART_EMPTY",
        "INSUFFICIENT_STOCK",
        "ORDER_EXPIRED",
        "PRICE_CHANGED",
        "PRODUCT_DELETED",
    },
    "cancel": set[str](),
    "reprice": {"PRODUCT_NOT_FOUND", "PRODUCT_DELETED"},
    "delete product": {"PRODUCT_NOT_FOUND", "PRODUCT_DELETED"},
    "adjustStock": {"INSUFFICIENT_STOCK", "PRODUCT_NOT_FOUND", "PRODUCT_DELETED"},
}
"""What each call may be refused for."""


@dataclass(eq=False)
class Holder:
    """Who reaches a cart, and how."""

    subject: str
    """Empty for a guest."""
    secret: str
    metadata: Metadata
    cart: str
    """The id of the cart. It changes when a customer's cart has expired, and they get another one."""
    items: Items = field(default_factory=dict)
    """What the cart has before the race."""
    seen: cart_pb2.Cart | None = None
    """The cart as they saw it last. It may have changed since."""
    carts: set[str] = field(default_factory=set)
    """The ids of all carts that they had."""

    def __post_init__(self) -> None:
        self.carts.add(self.cart)

    def saw(self, cart: cart_pb2.Cart) -> None:
        """Remembers a cart that was returned. A customer's may be a new one."""
        self.seen, self.cart = cart, cart.id
        self.carts.add(cart.id)

    @property
    def secret_hash(self) -> bytes | None:
        return None if self.subject else hash_secret(self.secret)


@dataclass(eq=False)
class Call:
    """A call of a race, and the response."""

    kind: str
    cart: str = ""
    key: str = field(default_factory=lambda: str(uuid4()))
    """Calls with the same key are repetitions of one request."""
    product: str = ""
    quantity: int = 0
    guest: str = ""
    """The cart that is merged."""
    named_etag: str = ""
    """The version that is to be ordered."""
    expected_micros: int = ANY_TOTAL
    """The total that the customer saw."""
    holder: Holder | None = None
    """Whose cart is ordered."""
    refusal: str = ""
    etag: str = ""
    """The version of the response."""
    items: Items = field(default_factory=dict)
    """The items of the response."""
    order: str = ""
    """The order of the response."""


def items_of(cart: cart_pb2.Cart) -> Items:
    return {each.product_id: each.quantity for each in cart.items}


def micros(money: Any) -> int:
    return int(money.units) * 1_000_000 + int(money.nanos) // 1_000


@dataclass(eq=False)
class Round:
    """One race."""

    shop: RaceShop
    dice: random.Random
    products: list[str] = field(default_factory=lambda: [str(uuid4()), str(uuid4())])
    """The first one is the one that is repriced, deleted and adjusted."""
    stock: int = 10_000_000
    """The pieces of the first product before the race."""
    holders: list[Holder] = field(default_factory=list)
    """Those whose carts are changed."""
    guests: list[Holder] = field(default_factory=list)
    """Those whose carts are merged."""
    customers: list[Holder] = field(default_factory=list)
    """Those into whose carts they are merged."""
    calls: list[Call] = field(default_factory=list)
    unanswered: list[Call] = field(default_factory=list)
    """Calls whose outcome nobody knows. They were made again."""
    orders: list[Call] = field(default_factory=list)
    """Checkouts that placed an order."""
    problems: list[str] = field(default_factory=list)
    """What no client should ever be told."""
    start: int = 0
    """The number of the last version of a cart that was made before the race."""
    _number: int = 0
    _merged: int = 0

    @property
    def everybody(self) -> list[Holder]:
        return list(dict.fromkeys([*self.holders, *self.guests, *self.customers]))

    def guest(self, items: Items | None = None) -> Holder:
        secret = uuid4().hex
        return Holder("", secret, (("cart-secret", secret),), str(uuid4()), items or {})

    def customer(self, items: Items | None = None) -> Holder:
        subject = f"customer-{uuid4().hex}"
        return Holder(subject, "", self.shop.signed_in(subject), str(uuid4()), items or {})

    def pieces(self) -> int:
        """Returns a number of pieces that no other call of the round has: a power of two."""
        self._number += 1
        return 1 << (self._number % 20)

    async def pause(self) -> None:
        """Waits for a moment, in which others change what was seen."""
        await asyncio.sleep(self.dice.uniform(0, 0.006))

    def next_guest(self) -> Holder:
        """Returns whose cart is merged next: that of the next guest or, now and then, one that was merged before."""
        if self._merged < len(self.guests) and (not self._merged or self.dice.random() < 0.7):
            self._merged += 1
            return self.guests[self._merged - 1]
        return self.dice.choice(self.guests[: self._merged])

    async def call(self, call: Call, stubs: Sequence[Any], method: str, request: Any, metadata: Metadata) -> Any:
        """Makes a call at one of the services, until it is answered. Returns the response, or None if it is refused."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                stub = self.dice.choice(stubs)
                response = await getattr(stub, method)(request, metadata=metadata, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                if refusal.code in UNANSWERED:
                    self.unanswered.append(call)
                    await self._back_off(attempt)
                    continue
                call.refusal = refusal.reason or refusal.code
                if call.refusal not in REFUSALS[call.kind]:
                    self.problems.append(f"{call.kind}: {refusal.code} {refusal.reason} {refusal.message}")
                response = None
            self.calls.append(call)
            return response
        self.problems.append(f"{call.kind}: no answer after {MAX_ATTEMPTS} attempts")
        return None

    async def change(self, call: Call, method: str, request: Any, holder: Holder) -> cart_pb2.Cart | None:
        """Makes a call that returns a cart."""
        response: cart_pb2.Cart | None = await self.call(call, self.shop.carts, method, request, holder.metadata)
        if response is not None:
            call.etag, call.items, call.cart = response.etag, items_of(response), response.id
            holder.saw(response)
        return response

    async def repeatedly(self, call: Call, method: str, request: Any, holder: Holder) -> cart_pb2.Cart | None:
        """Makes such a call once, twice at the same time, or twice one after the other. Returns the first response."""
        again = replace(call)
        match self.dice.randrange(4):
            case 0 | 1:
                both = (self.change(call, method, request, holder), self.change(again, method, request, holder))
                first, second = await asyncio.gather(*both)
                return first or second
            case 2:
                first = await self.change(call, method, request, holder)
                await self.change(again, method, request, holder)
                return first
            case _:
                return await self.change(call, method, request, holder)

    async def view(self, holder: Holder) -> cart_pb2.Cart | None:
        """Returns a cart as its holder sees it; None if it is gone. A customer whose cart is gone gets another one."""
        return await self._read("GetCart", cart_pb2.GetCartRequest(id=holder.cart), holder) or await self.renew(holder)

    async def renew(self, holder: Holder) -> cart_pb2.Cart | None:
        """Gets a customer's cart, which may be a new one. Returns None for a guest."""
        return await self._read("GetMyCart", cart_pb2.GetMyCartRequest(), holder) if holder.subject else None

    async def _read(self, method: str, request: Any, holder: Holder) -> cart_pb2.Cart | None:
        """Reads a cart. Returns None if it is gone. That is no call of the race."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                stub = self.dice.choice(self.shop.carts)
                cart: cart_pb2.Cart = await getattr(stub, method)(request, metadata=holder.metadata, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                if refusal.code in UNANSWERED:
                    await self._back_off(attempt)
                    continue
                if refusal.reason != GONE:
                    self.problems.append(f"{method}: {refusal}")
                return None
            holder.saw(cart)
            return cart
        self.problems.append(f"{method}: no answer after {MAX_ATTEMPTS} attempts")
        return None

    async def _back_off(self, attempt: int) -> None:
        await asyncio.sleep(self.dice.uniform(0, 0.05 * (attempt + 1)))
