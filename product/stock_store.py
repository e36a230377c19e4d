"""Reservations in PostgreSQL. Each method is one statement, and so one transaction and one round trip.

Statements that touch both lock products first, in id order, and reservations after them, in id order too, so that no
two wait for each other in a circle. All parts of a statement see one snapshot; what a lock had to wait for is seen all
the same, because PostgreSQL (READ COMMITTED) locks and updates the newest version of a row and looks at its condition
again. New stock is reckoned from the locked row: from the row to be updated, PostgreSQL first reckons with the version
of the snapshot, and CHECK constraints are held against that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from product.reservation import Candidate, Hold, Item, Reservation, State
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


@dataclass(frozen=True, kw_only=True)
class _Candidate(Candidate):
    hold: int
    """Which one of the batch, from 1."""


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

    async def reserve(self, holds: Sequence[Hold]) -> list[Sequence[Candidate]]:
        """Takes the stock of all items of a hold or of none; the ids differ. Returns the candidates of each.

        It was taken if they have an expire_time. If not, some candidate says why, or the reservation was there already,
        or there is too little for those before it in the sequence, the refused ones included, and for it together:
        another run decides. The first one of a run is always decided.
        """
        query: LiteralString = """
            WITH wanted AS MATERIALIZED (
                SELECT hold, product_id, quantity, position
                FROM unnest(%(holds)s::integer[], %(products)s::uuid[], %(quantities)s::integer[]) WITH ORDINALITY
                    AS each (hold, product_id, quantity, position)
            ), locked AS MATERIALIZED (
                SELECT id, name, currency, price_micros, stock, delete_time FROM product
                WHERE id = ANY (%(products)s::uuid[])
                ORDER BY id
                FOR NO KEY UPDATE
            ), candidate AS MATERIALIZED (
                SELECT wanted.*, locked.*, sum(quantity) OVER (PARTITION BY product_id ORDER BY hold) AS demand
                FROM wanted LEFT JOIN locked ON locked.id = wanted.product_id
            ), accepted AS (
                SELECT
                    hold,
                    jsonb_agg(
                        jsonb_build_object(
                            'product_id', product_id, 'quantity', quantity, 'name', name, 'currency', currency,
                            'price_micros', price_micros
                        ) ORDER BY position
                    ) AS items
                FROM candidate
                GROUP BY hold
                HAVING bool_and(
                        coalesce(delete_time IS NULL AND stock >= demand AND quantity <= 100000000, false)
                    )
                    AND count(DISTINCT currency) = 1
            ), made AS (
                INSERT INTO reservation (id, state, items, expire_time)
                SELECT (%(ids)s::uuid[])[hold], 'HELD', items, now() + (%(ttls)s::interval[])[hold]
                FROM accepted
                ORDER BY 1
                ON CONFLICT (id) DO NOTHING
                RETURNING id, expire_time
            ), answer AS MATERIALIZED (
                SELECT candidate.*, made.expire_time
                FROM candidate LEFT JOIN made ON made.id = (%(ids)s::uuid[])[hold]
            ), taken AS (
                UPDATE product SET stock = sold.stock - sold.pieces
                FROM (
                    SELECT id, stock, sum(quantity) AS pieces
                    FROM answer
                    WHERE expire_time IS NOT NULL
                    GROUP BY id, stock
                ) AS sold
                WHERE product.id = sold.id
            )
            SELECT hold, product_id, quantity, delete_time IS NOT NULL AS deleted, name, currency, price_micros, stock,
                expire_time
            FROM answer
            ORDER BY position
            """
        numbered = [(number, item) for number, hold in enumerate(holds, start=1) for item in hold.wanted]
        params = {
            "ids": [hold.id for hold in holds],
            "ttls": [hold.ttl for hold in holds],
            "holds": [number for number, _ in numbered],
            "products": [item.product_id for _, item in numbered],
            "quantities": [item.quantity for _, item in numbered],
        }
        candidates: list[list[Candidate]] = [[] for _ in holds]
        for row in await self._database.fetch("stock.reserve", query, params, _Candidate):
            candidates[row.hold - 1].append(row)
        return [*candidates]

    async def confirm(self, ids: Sequence[UUID]) -> Sequence[Reservation]:
        """Confirms holds. Returns those that it has changed."""
        query: LiteralString = """
            WITH held AS MATERIALIZED (
                SELECT id FROM reservation
                WHERE id = ANY (%(ids)s) AND state = 'HELD'
                ORDER BY id
                FOR NO KEY UPDATE
            )
            UPDATE reservation SET state = 'CONFIRMED', update_time = now()
            FROM held
            WHERE reservation.id = held.id
            RETURNING reservation.id, state, items, expire_time
            """
        return await self._reservations("stock.confirm", query, {"ids": list(ids)})

    async def release(self, ids: Sequence[UUID]) -> Sequence[Reservation]:
        """Gives stock back, or writes RELEASED for an unknown id; the ids differ. Returns the reservations that it has
        changed: not those that are RELEASED already, nor those that came to be while the statement ran, which then has
        not locked their products; another run does."""
        query: LiteralString = """
            WITH seen AS MATERIALIZED (
                SELECT id, items FROM reservation WHERE id = ANY (%(ids)s) AND state <> 'RELEASED'
            ), piece AS MATERIALIZED (
                SELECT seen.id AS reservation_id, item.product_id, item.quantity
                FROM seen CROSS JOIN jsonb_to_recordset(seen.items) AS item (product_id uuid, quantity integer)
            ), locked AS MATERIALIZED (
                SELECT id, stock FROM product
                WHERE id = ANY (ARRAY(SELECT product_id FROM piece))
                ORDER BY id
                FOR NO KEY UPDATE
            ), released AS (
                INSERT INTO reservation AS old (id, state, items, expire_time)
                SELECT each.id, 'RELEASED', '[]', now()
                FROM unnest(%(ids)s::uuid[]) AS each (id)
                    CROSS JOIN (SELECT count(*) FROM locked) AS had  -- One row, once all locks are had.
                ORDER BY each.id
                ON CONFLICT (id) DO UPDATE SET state = 'RELEASED', update_time = now()
                    WHERE old.state <> 'RELEASED' AND old.id IN (SELECT id FROM seen)
                RETURNING id, state, items, expire_time
            ), given AS (
                UPDATE product SET stock = locked.stock + back.pieces
                FROM locked, (
                    SELECT product_id, sum(quantity) AS pieces
                    FROM piece JOIN released ON released.id = piece.reservation_id
                    GROUP BY product_id
                ) AS back
                WHERE locked.id = back.product_id AND product.id = locked.id
            )
            SELECT id, state, items, expire_time FROM released
            """
        return await self._reservations("stock.release", query, {"ids": list(ids)})

    async def batch_get(self, ids: Sequence[UUID]) -> Sequence[Reservation]:
        """Those of the reservations that exist."""
        query: LiteralString = "SELECT id, state, items, expire_time FROM reservation WHERE id = ANY (%(ids)s)"
        return await self._reservations("stock.batch_get", query, {"ids": list(ids)})

    async def _reservations(
        self, name: LiteralString, query: LiteralString, params: Mapping[str, object]
    ) -> Sequence[Reservation]:
        return [row.reservation() for row in await self._database.fetch(name, query, params, _Row)]

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
        return await self._reservations("stock.list", query, params)

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
