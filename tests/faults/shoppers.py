"""Clients that buy through carts while the shop breaks.

Whatever was put into a cart is in it, or in an order that was made of it, and never in both. A customer sees a cart
before the checkout, and gets exactly what the cart had then, for no more than it cost then.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

from order.cart.domain import derive_order_id
from tests.faults.attempts import RETRY_TIMEOUT, Attempt, Record, Refused
from tests.support.access import Metadata, bearer
from tests.support.carts import quantities
from tests.support.invariants_cart import Pieces
from tests.support.oidc import Issuer

OVER = {"CART_CHANGED", "ORDER_EXPIRED"}
"""The reasons that say that nothing was and will be ordered under an etag."""

READ_AGAIN = {*OVER, "PRICE_CHANGED"}
"""The reasons after which a customer reads the cart and checks out again."""

MAX_CHECKOUTS = 10
"""How often a customer does that."""


@dataclass(eq=False)
class Basket:
    """A cart, and what its holder has put into it."""

    id: str
    metadata: Metadata
    put_in: Pieces = field(default_factory=Counter)
    """What was acknowledged to be in the cart. It stays here when it is ordered."""


class Shoppers:
    """Guests and customers with carts."""

    def __init__(self, record: Record, issuer: Issuer, carts: Any, each: Sequence[Any], timeout: float) -> None:
        """Initializes the shoppers.

        Args:
            record: What all clients know.
            issuer: Makes the tokens of customers.
            carts: A stub that calls all replicas of the order service.
            each: A stub for each replica.
            timeout: Seconds that one call may take.
        """
        self._record = record
        self._issuer = issuer
        self._carts = carts
        self._each = each
        self._timeout = timeout
        self.baskets: list[Basket] = []
        """All carts."""
        self.stale = 0
        """How often a cart was shown without what the catalogue says."""
        self.expired = 0
        """How often a checkout was told ORDER_EXPIRED."""
        self.retried = 0
        """How often a checkout had no answer, and was tried again with the same etag."""

    async def buy(self, turn: int, items: dict[str, int], *, retry_timeout: float = RETRY_TIMEOUT) -> Attempt:
        """Fills a cart and checks out until there is an answer, or `retry_timeout` seconds are over."""

        async def baskets() -> tuple[Basket, Basket | None]:
            return await self.fill(items), await self.own_cart(items) if turn % 3 == 0 else None

        return await self._buy(baskets, items, turn, retry_timeout)

    async def buy_basket(self, basket: Basket, into: Basket | None = None) -> Attempt:
        """Orders what is in a cart. If `into` is a customer's one, it is merged into that first."""

        async def baskets() -> tuple[Basket, Basket | None]:
            return basket, into

        return await self._buy(baskets, dict(basket.put_in), 0, RETRY_TIMEOUT)

    async def start_again(self, basket: Basket) -> Attempt:
        """Fills a customer's cart that has expired, and orders what is in it."""
        items = dict(basket.put_in)
        self.baskets.remove(basket)
        return await self.buy_basket(await self.own_cart(items, basket.metadata))

    async def _buy(
        self,
        baskets: Callable[[], Awaitable[tuple[Basket, Basket | None]]],
        items: dict[str, int],
        turn: int,
        retry_timeout: float,
    ) -> Attempt:
        attempt = Attempt(str(uuid4()), items, from_cart=True)
        self._record.attempts.append(attempt)
        try:
            basket, into = await baskets()
            if into:
                basket = await self._merge(basket, into)
            await self._check_out(basket, attempt, turn, retry_timeout)
        except Refused as error:
            if error.refusal.reason == "INSUFFICIENT_STOCK" and not attempt.status:
                attempt.refusal = error.refusal.reason
            elif not self._record.restored and (retry_timeout or not error.is_retryable):
                self._record.problems.append(f"cart: {error}")
        return attempt

    async def fill(self, items: dict[str, int]) -> Basket:
        """Creates a guest's cart and puts items into it."""
        created = await self._record.insist(
            lambda: self._carts.CreateCart(cart_pb2.CreateCartRequest(), timeout=self._timeout)
        )
        basket = self._basket(created.cart.id, (("cart-secret", created.secret),))
        for product, quantity in items.items():
            await self._add(basket, product, quantity)
        return basket

    async def own_cart(self, items: dict[str, int], metadata: Metadata = ()) -> Basket:
        """Puts a piece of the first product into the cart of a customer, who is a new one without metadata."""
        metadata = metadata or bearer(self._issuer.token(f"shopper-{uuid4()}"))
        own = await self._record.insist(
            lambda: self._carts.GetMyCart(cart_pb2.GetMyCartRequest(), metadata=metadata, timeout=self._timeout)
        )
        basket = self._basket(own.id, metadata)
        await self._add(basket, next(iter(items)), 1)
        return basket

    async def _merge(self, basket: Basket, into: Basket) -> Basket:
        """Merges a guest's cart into a customer's one."""
        request = cart_pb2.MergeCartRequest(cart_id=basket.id, secret=dict(basket.metadata)["cart-secret"])
        for _ in self._once_or_twice():
            await self._record.insist(
                lambda: self._carts.MergeCart(request, metadata=into.metadata, timeout=self._timeout)
            )
        into.put_in += basket.put_in
        basket.put_in = Counter()
        return into

    async def _check_out(self, basket: Basket, attempt: Attempt, turn: int, retry_timeout: float) -> None:
        """Orders what is in a cart. A customer who is told to read it again does so."""
        for number in range(MAX_CHECKOUTS):
            cart: cart_pb2.Cart = await self._record.insist(
                lambda: self._carts.GetCart(
                    cart_pb2.GetCartRequest(id=basket.id), metadata=basket.metadata, timeout=self._timeout
                )
            )
            self.stale += cart.stale
            if quantities(cart) != basket.put_in:
                if not self._record.restored:
                    self._record.problems.append(f"cart {basket.id} has {quantities(cart)}, not {basket.put_in}")
                return
            # Some click twice, and some put something into the cart at the same time, in another tab.
            stubs = self._each if turn % 2 else [self._carts]
            clicks = [self._click(stub, basket, cart, attempt, retry_timeout) for stub in stubs]
            tab = [self._add(basket, next(iter(basket.put_in)), 1)] if turn % 7 == 3 and not number else []
            *answers, added = await asyncio.gather(*clicks, _all(tab), return_exceptions=True)
            if isinstance(added, BaseException):
                raise added
            if not self._must_read_again(cart, attempt, answers):
                return
        self._record.problems.append(f"cart {basket.id} had to be read again after each of {MAX_CHECKOUTS} checkouts")

    async def _click(
        self, stub: Any, basket: Basket, cart: cart_pb2.Cart, attempt: Attempt, retry_timeout: float
    ) -> order_pb2.Order:
        request = cart_pb2.CheckoutCartRequest(id=cart.id, etag=cart.etag, expected_total=cart.total, notes=attempt.key)
        attempt.may_be.add(str(derive_order_id(UUID(cart.id), UUID(cart.etag))))
        calls = 0

        async def checkout() -> order_pb2.Order:
            nonlocal calls
            calls += 1
            self.retried += calls == 2
            order: order_pb2.Order = await stub.CheckoutCart(request, metadata=basket.metadata, timeout=self._timeout)
            return order

        return await self._record.place(attempt, checkout, retry_timeout)

    def _must_read_again(self, cart: cart_pb2.Cart, attempt: Attempt, answers: Sequence[object]) -> bool:
        """Returns whether the version of the cart that was to be ordered is over. Raises Refused for other refusals."""
        refusals = [each for each in answers if isinstance(each, Refused)]
        for each in answers:
            if isinstance(each, BaseException) and not isinstance(each, Refused):
                raise each
        reasons = {each.refusal.reason for each in refusals} & READ_AGAIN
        self.expired += "ORDER_EXPIRED" in reasons
        orders = [each for each in answers if isinstance(each, order_pb2.Order)]
        for order in orders:
            ordered = {item.product_id: item.quantity for item in order.items}
            if ordered != quantities(cart) or _nanos(order.total) > _nanos(cart.total):
                self._record.problems.append(f"order {order.id} has {ordered} at {order.total}, the cart was {cart}")
            attempt.items = ordered
        if orders and reasons & OVER and not self._record.restored:
            self._record.problems.append(f"one click got order {attempt.id}, the other one {reasons}")
        if not orders and not reasons:
            # Whether there is an order is certain only if each click was told.
            raise min(refusals, key=lambda each: not each.is_retryable)
        return not orders

    async def _add(self, basket: Basket, product: str, quantity: int) -> None:
        request = cart_pb2.AddCartItemRequest(
            id=basket.id, product_id=product, quantity=quantity, request_id=str(uuid4())
        )
        for _ in self._once_or_twice():
            await self._record.insist(
                lambda: self._carts.AddCartItem(request, metadata=basket.metadata, timeout=self._timeout)
            )
        basket.put_in[product] += quantity

    def _basket(self, cart_id: str, metadata: Metadata) -> Basket:
        basket = Basket(cart_id, metadata)
        self.baskets.append(basket)
        return basket

    def _once_or_twice(self) -> range:
        """Twice is as if the response was lost."""
        return range(2 if self._record.dice.random() < 0.1 else 1)


async def _all(work: Sequence[Any]) -> None:
    await asyncio.gather(*work)


def _nanos(money: Any) -> int:
    return int(money.units) * 1_000_000_000 + int(money.nanos)
