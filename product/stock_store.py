"""Reservations in PostgreSQL. Each method is one statement, and so one transaction and one round trip.

Statements that touch both lock products first, in id order, and the reservation after them, so that no two wait for
each other in a circle. All parts of a statement see one snapshot; what a lock had to wait for is seen all the same,
because PostgreSQL (READ COMMITTED) locks and updates the newest version of a row and looks at its condition again. New
stock is reckoned from the locked row: from the row to be updated, PostgreSQL first reckons with the version of the
snapshot, and CHECK constraints are held against that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from product.reservation import Candidate, Item, Reservation, State, Wanted
from runtime.database import Database


@dataclass(frozen=True, kw_only=True)
class _Row:
    id: UUID
    state: State
    items: list[dict[str, Any]]
    expire_time: datetime

    def reservation(self) -> Reservation:
        items = (Item(**item | {"product_id": UUID(item["product_id"])}) for item in self.items)
        return Reservation(id=self.id, state=self.state, items=tuple(items), expire_time=self.expire_time)


@dataclass(frozen=True)
class Expired:
    """A hold whose time is over."""

    id: UUID
    expire_time: datetime


@dataclass(frozen=True)
class DatabasePair:
    """The id of this database, and of the order database that it belongs to, if that is known."""

    id: UUID
    partner_id: UUID | None


class StockStore:
    """Reads and writes reservations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, reservation_id: UUID, wanted: Sequence[Wanted], ttl: timedelta) -> Sequence[Candidate]:
        """Takes the stock of all items or of none. It was taken if the candidates have an expire_time. If not, some
        candidate says why, or the reservation was there already."""
        query: LiteralString = """
            WITH wanted AS MATERIALIZED (
                SELECT product_id, quantity, position
                FROM unnest(%(products)s::uuid[], %(quantities)s::integer[]) WITH ORDINALITY
                    AS each (product_id, quantity, position)
            ), locked AS MATERIALIZED (
                SELECT id, name, currency, price_micros, stock, delete_time FROM product
                WHERE id = ANY (%(products)s::uuid[])
                ORDER BY id
                FOR NO KEY UPDATE
            ), made AS (
                INSERT INTO reservation (id, state, items, expire_time)
                SELECT
                    %(id)s,
                    'HELD',
                    jsonb_agg(
                        jsonb_build_object(
                            'product_id', product_id, 'quantity', quantity, 'name', name, 'currency', currency,
                            'price_micros', price_micros
                        ) ORDER BY position
                    ),
                    now() + %(ttl)s
                FROM wanted LEFT JOIN locked ON locked.id = wanted.product_id
                HAVING bool_and(
                        coalesce(delete_time IS NULL AND stock >= quantity AND quantity <= 100000000, false)
                    )
                    AND count(DISTINCT currency) = 1
                ON CONFLICT (id) DO NOTHING
                RETURNING expire_time
            ), taken AS (
                UPDATE product SET stock = locked.stock - wanted.quantity
                FROM wanted, locked, made
                WHERE locked.id = wanted.product_id AND product.id = locked.id
            )
            SELECT product_id, quantity, delete_time IS NOT NULL AS deleted, name, currency, price_micros, stock,
                made.expire_time
            FROM wanted LEFT JOIN locked ON locked.id = wanted.product_id LEFT JOIN made ON true
            ORDER BY position
            """
        params = {
            "id": reservation_id,
            "products": [item.product_id for item in wanted],
            "quantities": [item.quantity for item in wanted],
            "ttl": ttl,
        }
        return await self._database.fetch("stock.reserve", query, params, Candidate)

    async def get(self, reservation_id: UUID) -> Reservation | None:
        query: LiteralString = "SELECT id, state, items, expire_time FROM reservation WHERE id = %(id)s"
        row = await self._database.fetch_one("stock.get", query, {"id": reservation_id}, _Row)
        return row.reservation() if row else None

    async def confirm(self, reservation_id: UUID) -> Reservation | None:
        """Confirms a hold; None if there is none with this id."""
        query: LiteralString = """
            UPDATE reservation SET state = 'CONFIRMED', update_time = now()
            WHERE id = %(id)s AND state = 'HELD'
            RETURNING id, state, items, expire_time
            """
        row = await self._database.fetch_one("stock.confirm", query, {"id": reservation_id}, _Row)
        return row.reservation() if row else None

    async def release(self, reservation_id: UUID) -> Reservation | None:
        """Gives the stock back, or writes RELEASED for an unknown id. None if it is RELEASED already, or if it came to
        be while the statement ran, which then has not locked its products; another run does."""
        query: LiteralString = """
            WITH seen AS MATERIALIZED (
                SELECT items FROM reservation WHERE id = %(id)s AND state <> 'RELEASED'
            ), locked AS MATERIALIZED (
                SELECT product.id, product.stock, item.quantity
                FROM seen
                    CROSS JOIN jsonb_to_recordset(seen.items) AS item (product_id uuid, quantity integer)
                    JOIN product ON product.id = item.product_id
                ORDER BY product.id
                FOR NO KEY UPDATE OF product
            ), released AS (
                INSERT INTO reservation AS old (id, state, items, expire_time)
                SELECT %(id)s, 'RELEASED', '[]', now()
                FROM locked HAVING count(*) >= 0  -- One row always, once all locks are had.
                ON CONFLICT (id) DO UPDATE SET state = 'RELEASED', update_time = now()
                    WHERE old.state <> 'RELEASED' AND EXISTS (SELECT FROM seen)
                RETURNING id, state, items, expire_time
            ), given AS (
                UPDATE product SET stock = locked.stock + locked.quantity
                FROM locked, released
                WHERE product.id = locked.id
            )
            SELECT id, state, items, expire_time FROM released
            """
        row = await self._database.fetch_one("stock.release", query, {"id": reservation_id}, _Row)
        return row.reservation() if row else None

    async def expired(self, after: tuple[datetime, UUID] | None, limit: int) -> Sequence[Expired]:
        """Holds whose time is over, the longest expired first, that come after a place in that sequence."""
        query: LiteralString = """
            SELECT id, expire_time FROM reservation
            WHERE state = 'HELD' AND expire_time < now()
                AND (expire_time, id) > (coalesce(%(time)s::timestamptz, '-infinity'), coalesce(%(id)s::uuid, %(nil)s))
            ORDER BY expire_time, id LIMIT %(limit)s
            """
        time, last = after or (None, None)
        params = {"time": time, "id": last, "nil": UUID(int=0), "limit": limit}
        return await self._database.fetch("stock.expired", query, params, Expired)

    async def batch_get(self, ids: Sequence[UUID]) -> Sequence[Reservation]:
        """Those of the reservations that exist."""
        query: LiteralString = "SELECT id, state, items, expire_time FROM reservation WHERE id = ANY (%(ids)s)"
        rows = await self._database.fetch("stock.batch_get", query, {"ids": list(ids)}, _Row)
        return [row.reservation() for row in rows]

    async def page(self, states: Sequence[State], after: UUID | None, limit: int) -> Sequence[Reservation]:
        """Reservations in these states by id, those that follow the id `after`."""
        # Two statements: in one, planned for any `after`, the condition on it would leave nothing to the index.
        beyond: LiteralString = "AND id > %(after)s" if after else ""
        query: LiteralString = f"""
            SELECT id, state, items, expire_time FROM reservation
            WHERE state = ANY (%(states)s) {beyond}
            ORDER BY id LIMIT %(limit)s
            """  # noqa: S608 - literals only
        params = {"states": list(states), "after": after, "limit": limit}
        rows = await self._database.fetch("stock.list", query, params, _Row)
        return [row.reservation() for row in rows]

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool, replace: bool
    ) -> DatabasePair:
        """Which databases belong together. Records the order database where none is recorded, or in place of another
        one; not where the order service has another product database than this on record."""
        query: LiteralString = """
            WITH recorded AS (
                UPDATE database_identity SET partner_id = %(order)s
                WHERE NOT %(read_only)s AND partner_id IS DISTINCT FROM %(order)s
                    AND (%(replace)s OR partner_id IS NULL AND id = coalesce(%(product)s::uuid, id))
                RETURNING id, partner_id
            )
            SELECT id, partner_id FROM recorded
            UNION ALL
            SELECT id, partner_id FROM database_identity WHERE NOT EXISTS (SELECT FROM recorded)
            """
        params = {"order": order_database, "product": product_database, "read_only": read_only, "replace": replace}
        pair = await self._database.fetch_one("stock.pair", query, params, DatabasePair)
        assert pair, "the migration has written the one row"
        return pair
