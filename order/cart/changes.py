"""The use cases of a cart's items: asks the product service what it offers, then changes the cart, and shows both."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from order.cart.domain import (
    Cart,
    CartView,
    Change,
    Changed,
    Refusal,
    cart_changed,
    cart_full,
    product_deleted,
    product_not_found,
    quantity_limit,
    view,
)
from order.cart.store import CartStore
from order.domain import Offer
from order.stock import ProductUnavailable, Stock
from runtime.errors import ApiError
from runtime.logs import Throttle

log = logging.getLogger(__name__)

WARNING_INTERVAL = 60.0
"""The shortest time between two log lines about a product service that does not respond, in seconds."""


@dataclass(frozen=True)
class _Known:
    """What the catalogue has said during a call."""

    offers: Mapping[UUID, Offer]
    is_away: bool = False


class Carts:
    """Changes carts, and shows them as the catalogue is now."""

    def __init__(self, store: CartStore, stock: Stock) -> None:
        self._store = store
        self._stock = stock
        self._may_warn = Throttle(WARNING_INTERVAL)

    async def show(self, cart: Cart, capped: Sequence[str] = ()) -> CartView:
        """Returns a cart with what the catalogue says about its items."""
        return await self._show(cart, _Known({}), capped)

    async def change(self, change: Change) -> CartView:
        """Changes a cart, and returns it as it is then.

        Raises:
            DomainError: The change is refused, or there is no such cart.
            ApiError: UNAVAILABLE if the cart lacks the product and the product service does not respond.
        """
        known = _Known({})
        if change.product_id and change.quantity:
            known = await self._look_up([change.product_id])
            change = replace(change, offer=known.offers.get(change.product_id))
        changed = await self._store.change(change)
        if changed.refusal:
            raise _refused(change, changed, known)
        return await self._show(changed.cart, known)

    async def _show(self, cart: Cart, known: _Known, capped: Sequence[str] = ()) -> CartView:
        ids = [UUID(each.product_id) for each in cart.items]
        missing = [each for each in ids if each not in known.offers]
        if missing and not known.is_away:
            found = await self._look_up(missing)
            known = _Known({**known.offers, **found.offers}, found.is_away)
        return view(cart, None if known.is_away and ids else known.offers, capped)

    async def _look_up(self, product_ids: Sequence[UUID]) -> _Known:
        """Returns what the catalogue says; nothing if it does not respond, or if too many calls wait for it.

        It raises no such error, because the cart may have been changed already.
        """
        try:
            return _Known(await self._stock.get_offers(product_ids))
        except ApiError:
            if self._may_warn():
                log.warning("the product service does not respond; carts are shown with what is known")
            return _Known({}, is_away=True)


def _refused(change: Change, changed: Changed, known: _Known) -> Exception:
    """Returns the error for a change that was refused."""
    match changed.refusal:
        case Refusal.CART_CHANGED:
            return cart_changed()
        case Refusal.CART_FULL:
            return cart_full()
        case Refusal.QUANTITY_LIMIT:
            return quantity_limit(change.product_id)
        case Refusal.PRODUCT_DELETED:
            return product_deleted(change.product_id, change.offer.name if change.offer else "")
        case _:
            return ProductUnavailable() if known.is_away else product_not_found(change.product_id)
