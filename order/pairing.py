"""Which order database and product database belong together: each has an id, and records the id of the other.

They exchange the ids when the services first connect. A backup keeps both ids, wherever it is restored. So a restored
database is recognized. An empty database, or one of another shop, is not: its orders must not decide about this shop's
stock.
"""

import logging
from dataclasses import dataclass
from uuid import UUID

from order.stock import Stock
from runtime.database import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Identity:
    """The id of this database, and the recorded id of the product database."""

    id: UUID
    partner_id: UUID | None


class Pairing:
    """The order database's side of the pairing."""

    def __init__(self, database: Database, stock: Stock) -> None:
        self._database = database
        self._stock = stock

    async def check(self, *, read_only: bool = False) -> str:
        """Checks that the two databases belong together.

        Args:
            read_only: If false, a database that has no id of the other on record records it.

        Returns:
            Why they do not belong together, in one line; empty if they do, or if neither has a record.

        Raises:
            ProductUnavailable: The product service is unavailable.
        """
        own = await self._read()
        pair = await self._stock.pair(own.id, own.partner_id, read_only=read_only)
        if pair.order_id not in (None, own.id):
            return f"the product database belongs to order database {pair.order_id}, and this is {own.id}"
        if own.partner_id not in (None, pair.product_id):
            return f"this order database belongs to product database {own.partner_id}, not to {pair.product_id}"
        if own.partner_id is None and not read_only:
            await self._record(pair.product_id, replace=False)
            log.info("order database %s is now paired with product database %s", own.id, pair.product_id)
        return ""

    async def replace(self) -> None:
        """Makes each database record the other's id, whatever it had on record: an operator has confirmed the pair."""
        own = await self._read()
        pair = await self._stock.pair(own.id, None, replace=True)
        await self._record(pair.product_id, replace=True)

    async def _read(self) -> _Identity:
        query = "SELECT id, partner_id FROM database_identity"
        own = await self._database.fetch_one("identity.get", query, {}, _Identity)
        if own is None:
            raise RuntimeError("the table database_identity is empty")
        return own

    async def _record(self, product_id: UUID, *, replace: bool) -> None:
        await self._database.execute(
            "identity.record",
            "UPDATE database_identity SET partner_id = %(product_id)s WHERE partner_id IS NULL OR %(replace)s",
            {"product_id": product_id, "replace": replace},
        )
