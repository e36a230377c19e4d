"""Writes of orders in batches: those that wait for each other's statement and commit leave together.

An order is under way in one batch at a time, and stands or falls by itself. No two batches, of whatever replicas, wait
for each other in a circle: new orders are written in the sequence of their ids, and moves pass over the orders that
somebody else has locked, for which they wait one by one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from order.domain import Draft, Item, Order, Status, sources, total_micros
from runtime.batch import MOST_WAITING, Batcher, apart
from runtime.database import Database

_SOURCES = {target: sources(target) for target in Status}


@dataclass(frozen=True, slots=True)
class New:
    """An order to be placed, with its items as they were reserved."""

    id: UUID
    caller: str
    draft: Draft
    fingerprint: bytes
    currency: str
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Move:
    """An order to get a status; if `version` is not None, only from that version."""

    id: UUID
    target: Status
    version: int | None


@dataclass(frozen=True)
class _Placed:
    """What the database knows first of a new order."""

    id: UUID
    number: str
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, kw_only=True)
class _Moved(Order):
    moved: bool


class Writes:
    def __init__(self, database: Database, most_waiting: int = MOST_WAITING) -> None:
        """`most_waiting`: orders that may wait to be placed, and as many to be moved on."""
        self._database = database
        self._inserts: Batcher[New, Order | None] = Batcher(
            "order.insert batch", partial(apart, self._insert), most_waiting=most_waiting
        )
        self._moves: Batcher[Move, tuple[Order | None, bool]] = Batcher(
            "order.move batch", self._move_free, most_waiting=most_waiting
        )
        self._inserting: set[UUID] = set()
        self._moving: set[UUID] = set()

    def check_queue(self) -> None:
        """Raises RESOURCE_EXHAUSTED where no other new order may wait."""
        self._inserts.check_queue()

    async def insert(self, new: New) -> Order | None:
        """Writes a new order, its first event and the message that confirms its hold; None if the id is taken."""
        if new.id in self._inserting:
            (order,) = await self._insert([new])
            return order
        with _within(self._inserting, new.id):
            return await self._inserts(new)

    async def _insert(self, orders: Sequence[New]) -> Sequence[Order | None]:
        query: LiteralString = """
            WITH placed AS (
                INSERT INTO orders (id, number, status, items, currency, total_micros, customer_name, customer_email,
                    customer_phone, shipping_address, payment_method, notes, fingerprint, caller)
                SELECT id, next_order_number(), 'PLACED', items, currency, total, name, email, phone, address, payment,
                    notes, decode(fingerprint, 'hex'), caller
                FROM jsonb_to_recordset(%(orders)s) AS given (id uuid, items jsonb, currency text, total numeric,
                    name text, email text, phone text, address text, payment text, notes text, fingerprint text,
                    caller text)
                ORDER BY id
                ON CONFLICT (id) DO NOTHING
                RETURNING id, number, status, version, create_time, update_time
            ), event AS (
                INSERT INTO order_event (order_id, version, status, create_time)
                SELECT id, version, status, create_time FROM placed
            ), message AS (
                INSERT INTO outbox (order_id, action) SELECT id, 'CONFIRM' FROM placed
            )
            SELECT id, number, version, create_time, update_time FROM placed
            """
        rows = [_row(each) for each in orders]
        placed = await self._database.fetch("order.insert", query, {"orders": Jsonb(rows)}, _Placed)
        by_id = {each.id: each for each in placed}
        return [_order(each, by_id.get(each.id)) for each in orders]

    async def move(self, move: Move) -> tuple[Order | None, bool]:
        """Gives an order its next status, with the event, and for a cancelled one the message that frees its stock.

        Returns the order as it is then, and whether it was moved: it is not where its status does not lead there, or it
        has another version than asked for. None if there is no such order.
        """
        order, moved = None, False
        if move.id not in self._moving:
            with _within(self._moving, move.id):
                order, moved = await self._moves(move)
        if order is None:
            # There is none, or somebody is at it: who waits for that has nobody else wait.
            ((order, moved),) = await self._move([move], "")
        return (None, False) if order is None or order.expired else (order, moved)

    async def _move_free(self, moves: Sequence[Move]) -> Sequence[tuple[Order | None, bool]]:
        return await self._move(moves, "SKIP LOCKED")

    async def _move(self, moves: Sequence[Move], locked: LiteralString) -> Sequence[tuple[Order | None, bool]]:
        """As `move`; `locked` says what becomes of orders that somebody else has locked."""
        # Time may run backwards, an order's history may not. What an order is reckoned from is its locked row: the
        # snapshot's may be older.
        query: LiteralString = f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM jsonb_to_recordset(%(moves)s)
                    AS given (id uuid, target text, sources text[], asked bigint)
            ), locked AS MATERIALIZED (
                SELECT id, number, status, items, currency, total_micros, customer_name, customer_email, customer_phone,
                    shipping_address, payment_method, notes, fingerprint, version, create_time, update_time
                FROM orders WHERE id = ANY (ARRAY (SELECT id FROM given)) FOR NO KEY UPDATE {locked}
            ), moved AS (
                UPDATE orders
                SET status = target, version = locked.version + 1, update_time = greatest(now(), locked.update_time)
                FROM locked JOIN given ON given.id = locked.id
                WHERE orders.id = locked.id AND locked.status = ANY (sources)
                    AND (asked IS NULL OR asked = locked.version)
                RETURNING orders.id, orders.status, orders.version, orders.update_time
            ), event AS (
                INSERT INTO order_event (order_id, version, status, create_time)
                SELECT id, version, status, update_time FROM moved
            ), message AS (
                INSERT INTO outbox (order_id, action) SELECT id, 'RELEASE' FROM moved WHERE status = 'CANCELLED'
            )
            SELECT locked.id, number, coalesce(moved.status, locked.status) AS status, items, currency, total_micros,
                customer_name, customer_email, customer_phone, shipping_address, payment_method, notes, fingerprint,
                coalesce(moved.version, locked.version) AS version, create_time,
                coalesce(moved.update_time, locked.update_time) AS update_time, moved.id IS NOT NULL AS moved
            FROM locked LEFT JOIN moved ON moved.id = locked.id
            """  # noqa: S608 - literals only
        rows = [
            {"id": str(each.id), "target": each.target, "sources": _SOURCES[each.target], "asked": each.version}
            for each in moves
        ]
        found = {row.id: row for row in await self._database.fetch("order.move", query, {"moves": Jsonb(rows)}, _Moved)}
        return [(row, row.moved) if (row := found.get(each.id)) else (None, False) for each in moves]


@contextmanager
def _within(ids: set[UUID], order_id: UUID) -> Iterator[None]:
    """Who comes with the same id during the block goes alone: in one batch after the other, the last would wait for all
    before it, each for as long as a database takes that does not answer."""
    ids.add(order_id)
    try:
        yield
    finally:
        ids.discard(order_id)


def _row(new: New) -> dict[str, Any]:
    """A new order as JSON. PostgreSQL keeps its numbers exactly, and its texts letter for letter."""
    draft = new.draft
    return {
        "id": str(new.id),
        "items": new.items,
        "currency": new.currency,
        "total": total_micros(new.items),
        "name": draft.customer_name,
        "email": draft.customer_email,
        "phone": draft.customer_phone,
        "address": draft.shipping_address,
        "payment": draft.payment_method,
        "notes": draft.notes,
        "fingerprint": new.fingerprint.hex(),
        "caller": new.caller,
    }


def _order(new: New, placed: _Placed | None) -> Order | None:
    """The order as it was written."""
    if placed is None:
        return None
    draft = new.draft
    return Order(
        id=new.id,
        number=placed.number,
        status=Status.PLACED,
        items=new.items,
        currency=new.currency,
        total_micros=Decimal(total_micros(new.items)),
        customer_name=draft.customer_name,
        customer_email=draft.customer_email,
        customer_phone=draft.customer_phone,
        shipping_address=draft.shipping_address,
        payment_method=draft.payment_method,
        notes=draft.notes,
        fingerprint=new.fingerprint,
        version=placed.version,
        create_time=placed.create_time,
        update_time=placed.update_time,
    )
