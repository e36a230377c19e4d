"""What becomes of holds whose time is over: an order process may have died between setting stock aside and the order.

Time alone decides nothing. For each such hold a tombstone is written under the order's id, unless the order is there;
whichever came first is the truth for everybody, a late CreateOrder included. Then the hold is confirmed or released.
"""

import asyncio
import logging
from uuid import UUID

from order.domain import EXPIRED, Status, same_items
from order.pairing import Pairing
from order.stock import ProductOlder, Stock
from order.store import OrderStore, Standing
from runtime.worker import Seldom, Worker

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two looks at the expired holds."""

PAGE = 500

TOGETHER = 8
"""Holds that are settled side by side."""

SPACING = 60.0
"""Seconds between two lines in the log about what keeps holds from being settled."""


class ExpiredHoldReaper:
    """Any number may run at the same time."""

    def __init__(self, orders: OrderStore, stock: Stock, pairing: Pairing) -> None:
        self._orders = orders
        self._stock = stock
        self._pairing = pairing
        self._token = ""
        self._say_foreign = Seldom(SPACING)
        self._say_failed = Seldom(SPACING)
        self.run = Worker("reconciler", self.step, INTERVAL).run

    async def step(self) -> bool:
        """Settles the next page of expired holds. Answers whether there is another page.

        A hold that cannot be settled is passed over: it comes again when all pages were looked at.
        """
        if not self._token and not await self._belongs():
            return False
        ids, token = await self._stock.expired(PAGE, self._token)
        self._token = ""
        if not ids:
            return False
        await self._orders.bury(ids)
        found = await self._orders.standing(ids)
        failed: dict[UUID, Exception] = {}
        for start in range(0, len(ids), TOGETHER):
            together = ids[start : start + TOGETHER]
            outcomes = await asyncio.gather(
                *(self._settle(each, found[each]) for each in together), return_exceptions=True
            )
            failed |= {
                each: outcome
                for each, outcome in zip(together, outcomes, strict=True)
                if isinstance(outcome, Exception)
            }
        if failed and self._say_failed():
            order_id, error = next(iter(failed.items()))
            log.warning(
                "%d of %d expired holds could not be settled, that of order %s: %s",
                len(failed),
                len(ids),
                order_id,
                error,
            )
        self._token = token
        return bool(token)

    async def _belongs(self) -> bool:
        """Whether these are this shop's holds. The orders of another database say nothing of them."""
        try:
            problem = await self._pairing.check()
        except ProductOlder:
            return True  # in the middle of an upgrade
        if problem and self._say_foreign():
            log.error("expired holds are left alone: %s; see docs/operations.md, Restoring a backup", problem)
        return not problem

    async def _settle(self, order_id: UUID, order: Standing) -> None:
        if order.status not in (EXPIRED, Status.CANCELLED):
            reservation = await self._stock.confirm(order_id)
            if reservation is None or same_items(reservation.items, order.items):
                return
            # A restored product database had lost the order's own, and its key was used for other goods.
            log.error("the hold of order %s had other items; released: run reconcile", order_id)
        await self._stock.release(order_id)
        if order.status == EXPIRED:
            log.info("expired hold of order %s released", order_id)
