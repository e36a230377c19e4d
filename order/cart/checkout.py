"""The use case of CheckoutCart: reserves the stock at the product service, then writes the order and empties the cart.

The order's id derives from the cart's id and etag, so all attempts to order one version of a cart meet in one order. If
that order can never be made, the cart gets another etag. From then on nobody orders anything under the old one, because
an order is written under the cart's lock, and only if the etag is still the same. So the hold can be released.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from order.cart.domain import (
    Cart,
    Holder,
    cart_changed,
    cart_empty,
    derive_order_id,
    order_expired,
    replayed,
)
from order.cart.store import CartStore
from order.checkout import in_sequence, is_overload
from order.domain import Details, Order, draft_of, total_micros
from order.outcomes import Outcomes
from order.stock import ProductUnavailable, Reservation, ReservationState, Stock
from order.store import OrderStore
from order.writes import CartVersion, Unplaced
from runtime.access.caller import Caller
from runtime.errors import ApiError, unavailable
from runtime.prices import Price, price_changed
from runtime.refusals import DomainError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """What a customer orders: a version of a cart."""

    cart_id: UUID
    etag: UUID
    details: Details
    expected: Price | None
    """The total that the customer saw; None to accept any."""

    @property
    def order_id(self) -> UUID:
        """The id of the order, and of its reservation."""
        return derive_order_id(self.cart_id, self.etag)


@dataclass(frozen=True, kw_only=True)
class CartCheckout:
    """Makes orders of carts."""

    carts: CartStore
    orders: OrderStore
    stock: Stock
    on_change: Callable[[Order], None]
    """Called after the commit of a new order."""
    outcomes: Outcomes

    async def place(self, purchase: Purchase, holder: Holder, caller: Caller, timeout: float | None) -> Order:
        """Orders a version of a cart, or returns the order that an earlier call has made of it.

        Args:
            purchase: What is ordered.
            holder: Who says that the cart is theirs.
            caller: Who places the order. It belongs to the caller's subject.
            timeout: Seconds that the client's deadline leaves; None without one.

        Raises:
            ApiError: The stock cannot be reserved, or the order cannot be written.
            DomainError: The cart is not the holder's, is empty, or has changed; or it was ordered in another way.
        """
        try:
            return await self._place(purchase, holder, caller, timeout)
        except Exception as error:
            self.outcomes.failed(error)
            raise

    async def _place(self, purchase: Purchase, holder: Holder, caller: Caller, timeout: float | None) -> Order:
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            cart = await self.carts.get(purchase.cart_id, holder)
        except DomainError as error:
            await self.carts.get(purchase.cart_id, holder, or_ended=True)
            return await self._find_placed(purchase, error)
        if cart.etag != purchase.etag:
            return await self._find_placed(purchase, cart_changed())
        if not cart.items:
            raise cart_empty()
        try:
            await self.orders.check_admission()
        except ApiError as error:
            if not error.reason:
                raise  # The database is overloaded or unavailable. Looking for the order would add to that.
            return await self._find_placed(purchase, error)
        if timeout is not None:
            # The database may have been slow. A client that has left must not get an order after it was told, when it
            # tried again, that there is not enough stock.
            timeout -= clock() - start
            if timeout <= 0:
                raise unavailable("the deadline of the call has passed")
        try:
            reservation = await self.stock.reserve(purchase.order_id, cart.lines, timeout, purchase.expected)
        except (ApiError, DomainError) as error:
            if is_overload(error):
                raise
            return await self._find_placed(purchase, error)
        if reservation.state is ReservationState.RELEASED:
            return await self._after_release(purchase)
        if problem := _check_total(purchase.expected, reservation):
            return await self._give_up(purchase, reservation, problem)
        return await self._write(purchase, cart, caller, reservation)

    async def _write(self, purchase: Purchase, cart: Cart, caller: Caller, reservation: Reservation) -> Order:
        draft = draft_of(cart.lines, purchase.details)
        items = in_sequence(draft, reservation.items)
        version = CartVersion(cart.id, cart.etag)
        outcome = await self.orders.insert_from_cart(
            purchase.order_id, version, caller.scope, draft, reservation.currency, items, caller.subject
        )
        if outcome is Unplaced.CART_CHANGED:
            return await self._after_change(purchase, reservation, cart_changed())
        if outcome is Unplaced.ID_TAKEN:
            return await self._after_release(purchase)
        log.info("order placed", extra={"order_id": str(outcome.id), "number": outcome.number, "cart_id": str(cart.id)})
        self.on_change(outcome)
        return outcome

    async def _find_placed(self, purchase: Purchase, error: Exception) -> Order:
        """Returns the order that an earlier call has placed; raises `error` if there is none."""
        found = await self.orders.find(purchase.order_id)
        if not isinstance(found, Order):
            raise error
        return self._repeated(found, purchase)

    async def _after_release(self, purchase: Purchase) -> Order:
        """Returns the order if there is one. If its id can become none, gives the cart another etag."""
        found = await self.orders.find(purchase.order_id)
        if not isinstance(found, Order):
            await self.carts.renew_etag(purchase.cart_id, purchase.etag)
            raise order_expired()
        return self._repeated(found, purchase)

    async def _give_up(self, purchase: Purchase, reservation: Reservation, error: DomainError) -> Order:
        """Raises `error` and releases the hold, unless another call orders this version, which then wins."""
        await self.carts.renew_etag(purchase.cart_id, purchase.etag)
        return await self._after_change(purchase, reservation, error)

    async def _after_change(self, purchase: Purchase, reservation: Reservation, error: DomainError) -> Order:
        """Returns the order of a version that is over. If there is none, releases the hold and raises `error`.

        Stock is confirmed for orders only. If it is, and there is no order, the order database comes from a backup.
        """
        order = await self.orders.find(purchase.order_id)
        if isinstance(order, Order):
            return self._repeated(order, purchase)
        if reservation.state is ReservationState.CONFIRMED:
            log.warning("order %s is gone, but has stock; run `order reconcile`", purchase.order_id)
            raise error
        try:
            await self.stock.release(purchase.order_id)
        except ProductUnavailable:
            log.info("the hold of order %s is left to the expired-hold reaper", purchase.order_id)
        raise error

    def _repeated(self, order: Order, purchase: Purchase) -> Order:
        return self.outcomes.repeated(replayed(order, purchase.details))


def _check_total(expected: Price | None, reservation: Reservation) -> DomainError | None:
    """Returns the error for a reservation that costs more than the customer expects.

    The product service refuses that itself, unless an earlier call made the reservation, or it is an older release.
    """
    total = Price(reservation.currency, total_micros(reservation.items))
    return price_changed(expected, total) if expected and total.exceeds(expected) else None
