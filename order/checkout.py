"""The use case of CreateOrder: reserves the stock at the product service, then writes the order.

A crash between the two steps leaves a hold, which the expired-hold reaper settles.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import grpc

from order.domain import Draft, Item, Order, expired, replayed, same_items
from order.outcomes import Outcomes
from order.stock import ProductUnavailable, ReservationState, Stock
from order.store import OrderStore
from runtime.access.caller import Caller
from runtime.errors import ApiError
from runtime.refusals import DomainError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """Places orders."""

    orders: OrderStore
    stock: Stock
    on_change: Callable[[Order], None]
    """Called after the commit of a new order."""
    outcomes: Outcomes

    async def place(self, order_id: UUID, caller: Caller, draft: Draft, timeout: float | None) -> Order:
        """Places an order, or returns the one that an earlier request with the same id has placed.

        Args:
            order_id: The id of the order and of its reservation, derived from the caller and the idempotency key.
            caller: Who places the order. It belongs to the caller's subject.
            draft: The order to place.
            timeout: Seconds that the client's deadline leaves; None without one.

        Raises:
            ApiError: The stock cannot be reserved, or the order cannot be written.
            DomainError: The idempotency key was used with another request, or its first attempt expired.
        """
        try:
            return await self._place(order_id, caller, draft, timeout)
        except Exception as error:
            self.outcomes.failed(error)
            raise

    async def _place(self, order_id: UUID, caller: Caller, draft: Draft, timeout: float | None) -> Order:
        try:
            await self.orders.check_admission()
        except ApiError as error:
            if not error.reason:
                raise  # The database is overloaded or unavailable. Looking for the order would add to that.
            return await self._find_placed(order_id, draft, error)
        try:
            reservation = await self.stock.reserve(order_id, draft.lines, timeout)
        except (ApiError, DomainError) as error:
            if is_overload(error):
                raise
            return await self._find_placed(order_id, draft, error)
        is_released = reservation.state is ReservationState.RELEASED
        if not is_released:
            items = in_sequence(draft, reservation.items)
            order = await self.orders.insert(order_id, caller.scope, draft, reservation.currency, items, caller.subject)
            if order:
                log.info("order placed", extra={"order_id": str(order_id), "number": order.number})
                self.on_change(order)
                return order
        # An INSERT that conflicts does not see the row that it conflicts with. A second statement does.
        found = await self.orders.find(order_id)
        if found is None:
            raise expired()
        items = found.items if isinstance(found, Order) else []
        if not is_released and not same_items(reservation.items, items):
            await self._release_foreign(order_id)
        return self.outcomes.repeated(replayed(found, draft))

    async def _find_placed(self, order_id: UUID, draft: Draft, error: Exception) -> Order:
        """Returns the order that an earlier request has placed; raises `error` if there is none.

        The client gets that order even if nothing can be written now, the product service is unavailable, or its
        database was restored from a backup without the reservation.
        """
        found = await self.orders.find(order_id)
        if found is None:
            raise error
        return self.outcomes.repeated(replayed(found, draft))

    async def _release_foreign(self, order_id: UUID) -> None:
        """Releases a reservation whose items are not those of the order with its id, or whose id has a tombstone.

        A restored product database had lost the order's reservation, and the key was used again for other products.
        """
        try:
            await self.stock.release(order_id)
            log.warning("released the reservation of order %s, which had other items", order_id)
        except ProductUnavailable:
            log.warning(
                "the reservation of order %s has other items, and could not be released because the product service is"
                " unavailable; run `order reconcile`",
                order_id,
            )


def is_overload(error: ApiError | DomainError) -> bool:
    """Returns whether the product service has too many requests. A full database has the same code, but a reason."""
    return isinstance(error, ApiError) and error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not error.reason


def in_sequence(draft: Draft, items: Sequence[Item]) -> list[Item]:
    """Returns the reserved items in the sequence of the request."""
    by_product = {UUID(item.product_id): item for item in items}
    return [by_product[line.product_id] for line in draft.lines]
