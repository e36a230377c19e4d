"""Reservations in PostgreSQL. Each method is one statement, and so one transaction and one round trip.

Statements that touch both tables first lock products in the order of their ids, and then reservations in the order of
theirs. So no two of them can deadlock. All parts of a statement see one snapshot. A row that was locked by another
transaction is seen as that transaction left it: PostgreSQL (READ COMMITTED) locks the newest version of the row and
checks the condition again. The new stock is computed from the locked row. Computed from the row to be updated, it would
first come from the snapshot's version, and a CHECK constraint would be tested with that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString, TypedDict
from uuid import UUID

from product.domain import MAX_STOCK
from product.reservation import Hold, Item, LockedProduct, Offer, Reservation, ReservationState
from runtime.arrays import uuids
from runtime.database import Database
from runtime.pages import Position


class _Item(TypedDict):
    """An item as the table keeps it, in JSON."""

    product_id: str
    quantity: int
    name: str
    currency: str
    price_micros: int


@dataclass(frozen=True, kw_only=True)
class _Row:
    id: UUID
    state: str
    items: list[_Item]
    expire_time: datetime

    def reservation(self) -> Reservation:
        items = tuple(
            [
                Item(
                    product_id=UUID(item["product_id"]),
                    quantity=item["quantity"],
                    name=item["name"],
                    currency=item["currency"],
                    price_micros=item["price_micros"],
                )
                for item in self.items
            ]
        )
        return Reservation(id=self.id, state=ReservationState(self.state), items=items, expire_time=self.expire_time)


@dataclass(frozen=True, kw_only=True)
class _LockedRow(LockedProduct):
    hold: int
    """Which hold of the batch, from 1."""


@dataclass(frozen=True)
class ExpiredHold:
    """A hold whose time is over."""

    id: UUID
    expire_time: datetime


@dataclass(frozen=True)
class OverdueHolds:
    """The holds whose time is over."""

    count: int
    age: float
    """Seconds since the time of the oldest one was over; 0 without one."""


@dataclass(frozen=True)
class DatabasePair:
    """This database, and the order database that it belongs to. `partner_id` is None while that is not known."""

    id: UUID
    partner_id: UUID | None


class StockStore:
    """Reads and writes reservations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, holds: Sequence[Hold]) -> Sequence[Sequence[LockedProduct]]:
        """Takes the stock of all items of a hold, or of none of them.

        Args:
            holds: The holds, all with different ids.

        Returns:
            The locked products of each hold, in the order of its items. If they have an `expire_time`, the reservation
            was made. If they have none, one of four things happened: a product is not available as requested, the items
            cost more than expected, the reservation existed before, or the earlier holds of the batch (rejected ones
            count too) left too little in this run. In the last case another run decides. A run always decides its first
            hold.
        """
        # Most batches expect no total. They do not pay for the comparison.
        affordable: LiteralString = (
            """
                    AND (
                        (%(totals)s::numeric[])[hold] IS NULL
                        OR sum(price_micros::numeric * quantity) <= (%(totals)s::numeric[])[hold]
                        AND min(currency) = (%(currencies)s::text[])[hold]
                    )
            """
            if any(hold.expected for hold in holds)
            else ""
        )
        query: LiteralString = f"""
            WITH requested AS MATERIALIZED (
                SELECT hold, product_id, quantity, position
                FROM unnest(%(holds)s::integer[], %(products)s::uuid[], %(quantities)s::integer[]) WITH ORDINALITY
                    AS each (hold, product_id, quantity, position)
            ), locked AS MATERIALIZED (
                SELECT id, name, currency, price_micros, stock, delete_time FROM product
                WHERE id = ANY (%(products)s::uuid[])
                ORDER BY id
                FOR NO KEY UPDATE
            ), candidate AS MATERIALIZED (
                SELECT requested.*, locked.*, sum(quantity) OVER (PARTITION BY product_id ORDER BY hold) AS demand
                FROM requested LEFT JOIN locked ON locked.id = requested.product_id
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
                        coalesce(delete_time IS NULL AND stock >= demand AND quantity <= %(max_stock)s, false)
                    )
                    AND count(DISTINCT currency) = 1
                    {affordable}
            ), inserted AS (
                INSERT INTO reservation (id, state, items, expire_time)
                SELECT (%(ids)s::uuid[])[hold], 'HELD', items, now() + (%(ttls)s::interval[])[hold]
                FROM accepted
                ORDER BY 1
                ON CONFLICT (id) DO NOTHING
                RETURNING id, expire_time
            ), decided AS MATERIALIZED (
                SELECT candidate.*, inserted.expire_time
                FROM candidate LEFT JOIN inserted ON inserted.id = (%(ids)s::uuid[])[hold]
            ), taken AS (
                UPDATE product SET stock = sold.stock - sold.pieces
                FROM (
                    SELECT id, stock, sum(quantity) AS pieces
                    FROM decided
                    WHERE expire_time IS NOT NULL
                    GROUP BY id, stock
                ) AS sold
                WHERE product.id = sold.id
            )
            SELECT hold, product_id, quantity, delete_time IS NOT NULL AS deleted, name, currency, price_micros, stock,
                expire_time
            FROM decided
            ORDER BY position
            """
        numbered = [(number, item) for number, hold in enumerate(holds, start=1) for item in hold.items]
        params: dict[str, object] = {
            "ids": [hold.id for hold in holds],
            "ttls": [hold.ttl for hold in holds],
            "holds": [number for number, _ in numbered],
            "products": [item.product_id for _, item in numbered],
            "quantities": [item.quantity for _, item in numbered],
            "max_stock": MAX_STOCK,
        }
        if affordable:
            params["totals"] = [hold.expected and Decimal(hold.expected.micros) for hold in holds]
            params["currencies"] = [hold.expected and hold.expected.currency for hold in holds]
        locked: list[list[LockedProduct]] = [[] for _ in holds]
        for row in await self._database.fetch("stock.reserve", query, params, _LockedRow):
            locked[row.hold - 1].append(row)
        return locked

    async def confirm(self, ids: Sequence[UUID]) -> Sequence[Reservation]:
        """Confirms holds. Returns the reservations that it changed."""
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
        """Gives stock back. For an id that is unknown it writes a reservation that is RELEASED.

        Args:
            ids: The ids of the reservations, all different.

        Returns:
            The reservations that it changed. Those that were RELEASED before are not among them. Neither are those that
            were made while the statement ran, because it has not locked their products. Another run releases them.
        """
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
                    CROSS JOIN (SELECT count(*) FROM locked) AS locks  -- One row, after all products are locked.
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
        """Returns those of the reservations that exist."""
        query: LiteralString = "SELECT id, state, items, expire_time FROM reservation WHERE id = ANY (%(ids)s)"
        return await self._reservations("stock.batch_get", query, {"ids": list(ids)})

    async def _reservations(
        self, name: LiteralString, query: LiteralString, params: Mapping[str, object]
    ) -> Sequence[Reservation]:
        return [row.reservation() for row in await self._database.fetch(name, query, params, _Row)]

    async def list_expired(self, after: Position | None, limit: int) -> Sequence[ExpiredHold]:
        """Returns holds whose time is over, the longest expired first, those after a position (time and id)."""
        query: LiteralString = """
            SELECT id, expire_time FROM reservation
            WHERE state = 'HELD' AND expire_time < now()
                AND (expire_time, id) > (coalesce(%(time)s::timestamptz, '-infinity'), coalesce(%(id)s::uuid, %(nil)s))
            ORDER BY expire_time, id LIMIT %(limit)s
            """
        time, last = after or (None, None)
        params = {"time": time, "id": last, "nil": UUID(int=0), "limit": limit}
        return await self._database.fetch("stock.expired", query, params, ExpiredHold)

    async def count_overdue(self, limit: int) -> OverdueHolds:
        """Returns how many holds are past their time, at most `limit`."""
        query: LiteralString = """
            SELECT count(*) AS count, coalesce(extract(epoch FROM now() - min(expire_time)), 0)::float8 AS age
            FROM (
                SELECT expire_time FROM reservation
                WHERE state = 'HELD' AND expire_time < now()
                ORDER BY expire_time LIMIT %(limit)s
            ) AS overdue
            """
        # Planned each time: a plan made for a table without holds would read all of a large one.
        [row] = await self._database.fetch("stock.overdue", query, {"limit": limit}, OverdueHolds, replan=True)
        return row

    async def list(
        self, states: Sequence[ReservationState], after: Position | None, limit: int
    ) -> Sequence[Reservation]:
        """Returns reservations in these states by id, those after a position (an id)."""
        # Two statements: in one, planned for any position, the condition could not use the index.
        beyond: LiteralString = "AND id > %(after)s" if after else ""
        query: LiteralString = f"""
            SELECT id, state, items, expire_time FROM reservation
            WHERE state = ANY (%(states)s) {beyond}
            ORDER BY id LIMIT %(limit)s
            """
        params = {"states": [state.value for state in states], "after": after[0] if after else None, "limit": limit}
        return await self._reservations("stock.list", query, params)

    async def batch_get_offers(self, product_ids: Sequence[UUID]) -> Sequence[Offer]:
        """Returns what those of the products cost that exist, deleted or not."""
        query: LiteralString = """
            SELECT id AS product_id, name, currency, price_micros, stock, delete_time IS NOT NULL AS deleted
            FROM product WHERE id = ANY (ARRAY (SELECT unnest(%(ids)s::uuid[])))
            """
        return await self._database.fetch("stock.offers", query, {"ids": uuids(product_ids)}, Offer)

    async def pair(
        self, order_database: UUID, product_database: UUID | None, *, read_only: bool, replace: bool
    ) -> DatabasePair:
        """Returns which databases belong together, after recording the order database if it may.

        Args:
            order_database: The id of the order database that calls.
            product_database: The id of the product database that it has on record. None if it has none.
            read_only: Records nothing.
            replace: Records the order database in place of another one, whatever either database has on record.
        """
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
        if pair is None:
            raise LookupError("database_identity has no row, which its migration writes")
        return pair
