"""What becomes of holds whose time is over: an order process may have died between setting stock aside and the order.

Time alone decides nothing. For each such hold a tombstone is written under the order's id, unless the order is there;
whichever came first is the truth for everybody, a late CreateOrder included. Then the hold is confirmed or released.
"""

import logging
from uuid import UUID

from order.catalog import Stock
from order.domain import EXPIRED, Status
from order.store import OrderStore
from order.worker import Worker

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two looks at the expired holds."""

PAGE = 500


class Reconciler:
    """Any number may run at the same time."""

    def __init__(self, orders: OrderStore, stock: Stock) -> None:
        self._orders = orders
        self._stock = stock
        self.run = Worker("reconciler", self.step, INTERVAL).run

    async def step(self) -> bool:
        """Settles one page of expired holds. Answers whether there may be more."""
        ids = await self._stock.expired(PAGE)
        if not ids:
            return False
        await self._orders.bury(ids)
        found = await self._orders.statuses(ids)
        for order_id in ids:
            await self._settle(order_id, found[order_id])
        return len(ids) == PAGE

    async def _settle(self, order_id: UUID, status: str) -> None:
        if status not in (EXPIRED, Status.CANCELLED):
            await self._stock.confirm(order_id)
            return
        await self._stock.release(order_id)
        if status == EXPIRED:
            log.info("expired hold of order %s released", order_id)
