"""Which two databases belong together: each has an id, and the other's on record from their first contact on.

A backup keeps both ids, wherever it is restored. So a restored database is known again, and one that is empty or of
another shop is not, whose orders (or the want of them) must not decide what becomes of this shop's stock.
"""

import logging
from dataclasses import dataclass
from uuid import UUID

from order.stock import Stock
from runtime.database import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Identity:
    """This database's id, and the product database's, if that is known."""

    id: UUID
    partner_id: UUID | None


class Pairing:
    """The order database's side."""

    def __init__(self, database: Database, stock: Stock) -> None:
        self._database = database
        self._stock = stock

    async def check(self, *, read_only: bool = False) -> str:
        """Why the two databases do not belong together, in one line; empty where they do, or where no more is known.

        Each records the other's id if it has none yet, unless `read_only`. Raises ProductUnavailable.
        """
        own = await self._read()
        pair = await self._stock.pair(own.id, own.partner_id, read_only=read_only)
        if pair.order_id not in (None, own.id):
            return f"the product database belongs to order database {pair.order_id}, and this is {own.id}"
        if own.partner_id not in (None, pair.product_id):
            return f"this order database belongs to product database {own.partner_id}, not to {pair.product_id}"
        if own.partner_id is None and not read_only:
            await self._record(pair.product_id, replace=False)
            log.info("this order database, %s, belongs to product database %s from now on", own.id, pair.product_id)
        return ""

    async def replace(self) -> None:
        """Has each database record the other one's id, whatever it was: people have said that they belong together."""
        own = await self._read()
        pair = await self._stock.pair(own.id, None, replace=True)
        await self._record(pair.product_id, replace=True)

    async def _read(self) -> _Identity:
        query = "SELECT id, partner_id FROM database_identity"
        own = await self._database.fetch_one("identity.get", query, {}, _Identity)
        assert own, "the migration has written the one row"
        return own

    async def _record(self, product_id: UUID, *, replace: bool) -> None:
        await self._database.fetch(
            "identity.record",
            "UPDATE database_identity SET partner_id = %(product)s WHERE partner_id IS NULL OR %(replace)s",
            {"product": product_id, "replace": replace},
            _Identity,
        )
