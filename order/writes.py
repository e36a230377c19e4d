"""Writes of orders in batches: concurrent writes share a statement and its commit.

Each order succeeds or fails by itself. Batches do not deadlock, on one replica or several: new orders are written in
the sequence of their ids, and moves skip orders that another transaction has locked, for which they wait one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from order.domain import Details, Draft, Item, Order, Status, sources, total_micros
from order.rows import OrderRow, order_of
from runtime.batch import MAX_WAITING, Batcher, isolate_failures
from runtime.database import Database
from runtime.rows import instance

_SOURCES = {target: sources(target) for target in Status}
_DETAILS = tuple(field.name for field in fields(Details))


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to be written, with its items as they were reserved."""

    id: UUID
    caller: str
    draft: Draft
    currency: str
    items: list[Item]
    owner: str


@dataclass(frozen=True, slots=True)
class Move:
    """A status for an order."""

    id: UUID
    target: Status
    version: int | None
    """If it is not None, only this version gets the status."""
    owner: str | None
    """If it is not None, the order does not exist for the caller unless it belongs to this owner."""


@dataclass(frozen=True)
class _Placed:
    """What the database decides of a new order."""

    id: UUID
    number: str
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, kw_only=True)
class _MovedRow(OrderRow):
    moved: bool


class Writes:
    """The batches of the two writes that clients wait for: new orders, and changes of status."""

    def __init__(self, database: Database, max_waiting: int = MAX_WAITING) -> None:
        """Initializes the batches. Up to `max_waiting` writes of each kind may wait or be under way."""
        self._database = database
        self._inserts: Batcher[NewOrder, Order | None] = Batcher(
            "order.insert batch",
            partial(isolate_failures, self._insert),
            key=lambda new: new.id,
            max_waiting=max_waiting,
        )
        self._moves: Batcher[Move, tuple[Order | None, bool]] = Batcher(
            "order.move batch",
            partial(self._move, if_locked="SKIP LOCKED"),
            key=lambda move: move.id,
            run_alone=partial(self._move, if_locked=""),
            max_waiting=max_waiting,
        )

    def check_queue(self) -> None:
        """Raises RESOURCE_EXHAUSTED if no other new order may wait."""
        self._inserts.check_queue()

    async def insert(self, new: NewOrder) -> Order | None:
        """Implements `OrderStore.insert`."""
        return await self._inserts(new)

    async def _insert(self, orders: Sequence[NewOrder]) -> Sequence[Order | None]:
        query: LiteralString = """
            WITH placed AS (
                INSERT INTO orders (id, number, status, items, currency, total_micros, customer_name, customer_email,
                    customer_phone, shipping_address, payment_method, notes, fingerprint, caller, owner)
                SELECT id, next_order_number(), 'PLACED', items, currency, total_micros, customer_name, customer_email,
                    customer_phone, shipping_address, payment_method, notes, decode(fingerprint, 'hex'), caller, owner
                FROM jsonb_to_recordset(%(orders)s) AS given (id uuid, items jsonb, currency text, total_micros numeric,
                    customer_name text, customer_email text, customer_phone text, shipping_address text,
                    payment_method text, notes text, fingerprint text, caller text, owner text)
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
        contents = [_content(each) for each in orders]
        rows = [_json(new, content) for new, content in zip(orders, contents, strict=True)]
        found = await self._database.fetch("order.insert", query, {"orders": Jsonb(rows)}, _Placed)
        placed = {each.id: each for each in found}
        return [_order(content, placed.get(new.id)) for new, content in zip(orders, contents, strict=True)]

    async def move(self, move: Move) -> tuple[Order | None, bool]:
        """Implements `OrderStore.move`."""
        order, moved = await self._moves(move)
        if order is None:
            # It does not exist, or another transaction has locked it: wait for that one without the batch.
            ((order, moved),) = await self._move([move], if_locked="")
        return order, moved

    async def _move(self, moves: Sequence[Move], if_locked: LiteralString) -> Sequence[tuple[Order | None, bool]]:
        """Moves orders as `move` does. `if_locked` says what happens to orders that another transaction has locked."""
        # `update_time` never decreases, even if the clock does. The new values derive from the locked row: the
        # snapshot's may be older.
        restriction: LiteralString = ""
        if any(each.owner is not None for each in moves):
            # A subquery and no join, which might have a plan that reads all orders. Orders of others are not locked.
            restriction = """AND (
                    SELECT given.owner IS NULL OR given.owner = nullif(orders.owner, '') FROM given
                    WHERE given.id = orders.id
                )"""
        query: LiteralString = f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM jsonb_to_recordset(%(moves)s)
                    AS given (id uuid, target text, sources text[], expected bigint, owner text)
            ), locked AS MATERIALIZED (
                SELECT id, number, status, items, currency, total_micros, customer_name, customer_email, customer_phone,
                    shipping_address, payment_method, notes, fingerprint, version, create_time, update_time,
                    owner
                FROM orders WHERE id = ANY (ARRAY (SELECT id FROM given)) {restriction}
                FOR NO KEY UPDATE {if_locked}
            ), moved AS (
                UPDATE orders
                SET status = target, version = locked.version + 1, update_time = greatest(now(), locked.update_time)
                FROM locked JOIN given ON given.id = locked.id
                WHERE orders.id = locked.id AND locked.status = ANY (sources)
                    AND (expected IS NULL OR expected = locked.version)
                RETURNING orders.id, orders.status, orders.version, orders.update_time
            ), event AS (
                INSERT INTO order_event (order_id, version, status, create_time)
                SELECT id, version, status, update_time FROM moved
            ), message AS (
                INSERT INTO outbox (order_id, action) SELECT id, 'RELEASE' FROM moved WHERE status = 'CANCELLED'
            )
            SELECT locked.id, number, nullif(coalesce(moved.status, locked.status), 'EXPIRED') AS status, items,
                currency, total_micros, customer_name, customer_email, customer_phone, shipping_address,
                payment_method, notes, fingerprint, coalesce(moved.version, locked.version) AS version, create_time,
                coalesce(moved.update_time, locked.update_time) AS update_time, locked.owner,
                moved.id IS NOT NULL AS moved
            FROM locked LEFT JOIN moved ON moved.id = locked.id
            """
        given = [
            {
                "id": str(each.id),
                "target": each.target,
                "sources": _SOURCES[each.target],
                "expected": each.version,
                "owner": each.owner,
            }
            for each in moves
        ]
        rows = await self._database.fetch("order.move", query, {"moves": Jsonb(given)}, _MovedRow)
        found = {row.id: _moved(row) for row in rows}
        return [found.get(each.id, (None, False)) for each in moves]


def _content(new: NewOrder) -> dict[str, Any]:
    """Returns the fields of an order that the database does not decide."""
    draft = new.draft
    content: dict[str, Any] = {name: getattr(draft, name) for name in _DETAILS}
    content["id"] = new.id
    content["items"] = new.items
    content["currency"] = new.currency
    content["total_micros"] = total_micros(new.items)
    content["fingerprint"] = draft.fingerprint()
    content["owner"] = new.owner
    return content


def _json(new: NewOrder, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an order for the statement. JSON keeps numbers exactly, and texts letter for letter."""
    row = dict(content)
    row["id"] = str(new.id)
    row["caller"] = new.caller
    row["items"] = [vars(item) for item in new.items]
    row["fingerprint"] = row["fingerprint"].hex()
    return row


def _order(content: dict[str, Any], placed: _Placed | None) -> Order | None:
    """Returns a new order as it was written."""
    if placed is None:
        return None
    return instance(
        Order, content | vars(placed) | {"status": Status.PLACED, "total_micros": Decimal(content["total_micros"])}
    )


def _moved(row: _MovedRow) -> tuple[Order | None, bool]:
    columns = dict(vars(row))
    moved: bool = columns.pop("moved")
    order = order_of(instance(OrderRow, columns))
    return (order, moved) if isinstance(order, Order) else (None, False)
