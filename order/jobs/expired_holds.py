"""The expired-hold reaper: settles the holds of orders that were never written, because their process crashed.

Time alone decides nothing. For each expired hold, the reaper writes a tombstone under the order's id, unless the order
exists. Order or tombstone: whichever is written first decides for everybody, a late CreateOrder included. Then the
reaper confirms or releases the hold.
"""

import asyncio
import logging
from collections import Counter
from uuid import UUID

from order.domain import Status, same_items
from order.pairing import Pairing
from order.stock import ProductOutdated, Stock
from order.store import OrderStore, OrderSummary
from runtime.logs import Throttle

log = logging.getLogger(__name__)

HOLD_POLL_INTERVAL = 5.0
"""Time between two polls for expired holds, in seconds."""

HOLD_PAGE_SIZE = 500
"""Expired holds that are read at a time."""

MAX_CONCURRENT_HOLDS = 8
"""Holds that are settled at the same time."""

CONFIRMED, RELEASED = "confirmed", "released"
"""How a hold is settled."""

WARNING_INTERVAL = 60.0
"""The shortest time between two log lines about holds that cannot be settled, in seconds."""


class ExpiredHoldReaper:
    """Settles expired holds. Any number of reapers may run at the same time."""

    def __init__(self, orders: OrderStore, stock: Stock, pairing: Pairing) -> None:
        self._orders = orders
        self._stock = stock
        self._pairing = pairing
        self.settled: Counter[str] = Counter({CONFIRMED: 0, RELEASED: 0})
        """Expired holds that were settled since the process started."""
        self._page_token = ""
        self._may_log_foreign = Throttle(WARNING_INTERVAL)
        self._may_log_failed = Throttle(WARNING_INTERVAL)

    async def step(self) -> bool:
        """Settles the next page of expired holds. Returns whether there is another page.

        A hold that cannot be settled is skipped. It is tried again after the last page.
        """
        if not self._page_token and not await self._is_paired():
            return False
        # Forgotten before the call: a token that is refused must not be sent again.
        after, self._page_token = self._page_token, ""
        ids, page_token = await self._stock.list_expired(HOLD_PAGE_SIZE, after)
        if not ids:
            return False
        await self._orders.insert_tombstones(ids)
        orders = await self._orders.get_summaries(ids)
        failed: dict[UUID, Exception] = {}
        for start in range(0, len(ids), MAX_CONCURRENT_HOLDS):
            some = ids[start : start + MAX_CONCURRENT_HOLDS]
            outcomes = await asyncio.gather(*(self._settle(orders[each]) for each in some), return_exceptions=True)
            failed |= {
                each: outcome for each, outcome in zip(some, outcomes, strict=True) if isinstance(outcome, Exception)
            }
        if failed and self._may_log_failed():
            order_id, error = next(iter(failed.items()))
            log.warning(
                "%d of %d expired holds could not be settled, such as that of order %s: %s",
                len(failed),
                len(ids),
                order_id,
                error,
            )
        self._page_token = page_token
        return bool(page_token)

    async def _is_paired(self) -> bool:
        """Returns whether the holds belong to this shop. The orders of another database do not decide about them."""
        try:
            problem = await self._pairing.check()
        except ProductOutdated:
            return True  # A rolling upgrade is under way.
        if problem and self._may_log_foreign():
            log.error("expired holds are left alone: %s; see docs/operations.md, Restoring a backup", problem)
        return not problem

    async def _settle(self, order: OrderSummary) -> None:
        if order.status not in (None, Status.CANCELLED):
            reservation = await self._stock.confirm(order.id)
            if reservation is None:
                return
            if same_items(reservation.items, order.items):
                self.settled[CONFIRMED] += 1
                return
            # A restored product database had lost the order's reservation, and its key was used for other products.
            log.error("the hold of order %s has other items, and is released; run `order reconcile`", order.id)
        await self._stock.release(order.id)
        self.settled[RELEASED] += 1
        if order.status is None:
            log.info("expired hold of order %s released", order.id)
