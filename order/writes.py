"""Writes of orders in batches: concurrent writes share a statement and its commit.

Each order succeeds or fails by itself. Batches do not deadlock, on one replica or several: new orders are written in
the sequence of their ids, and moves skip orders that another transaction has locked, for which they wait one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from order.cart.domain import EMPTY_TTL
from order.domain import Details, Draft, Item, Order, Status, sources, total_micros
from order.rows import OrderRow, order_of
from runtime.batch import MAX_WAITING, Batcher, isolate_failures
from runtime.database import Database
from runtime.rows import instance

_SOURCES = {target: sources(target) for target in Status}
_DETAILS = tuple(field.name for field in fields(Details))


MAX_ALONE = 4
"""Checkouts of carts that another one of this process orders, at a time. Each waits with a connection of its own."""


@dataclass(frozen=True, slots=True)
class CartVersion:
    """A version of a cart, which becomes an order."""

    id: UUID
    etag: UUID


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to be written, with its items as they were reserved."""

    id: UUID
    caller: str
    draft: Draft
    currency: str
    items: list[Item]
    owner: str
    cart: CartVersion | None = None
    """What it is made of, if it is made of a cart: this version is ordered and emptied, or nothing is."""
    traceparent: str | None = None
    """The call that places it, if its trace is sampled."""


class Unplaced(Enum):
    """Why no order was made of a cart."""

    CART_CHANGED = 1
    """The cart has another version, or is gone. So nothing can be ordered under the given one any more."""
    ID_TAKEN = 2
    """An order or a tombstone has the id."""


@dataclass(frozen=True, slots=True)
class Move:
    """A status for an order."""

    id: UUID
    target: Status
    version: int | None
    """If it is not None, only this version gets the status."""
    owner: str | None
    """If it is not None, the order does not exist for the caller unless it belongs to this owner."""
    traceparent: str | None = None
    """The call that gives it, if its trace is sampled."""


@dataclass(frozen=True)
class _Placed:
    """What the database decides of a new order."""

    id: UUID
    number: str
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True)
class _Checkout:
    """What the database found of a cart, and what it decided of the order, if it made one."""

    id: UUID
    """That of the order."""
    is_current: bool
    """Whether the cart has the given version."""
    number: str | None
    version: int | None
    create_time: datetime | None
    update_time: datetime | None


_GIVEN: LiteralString = """jsonb_to_recordset(%(orders)s) AS given (id uuid, items jsonb, currency text,
    total_micros numeric, customer_name text, customer_email text, customer_phone text, shipping_address text,
    payment_method text, notes text, fingerprint text, caller text, owner text, cart_id uuid, cart_etag uuid)"""
"""The new orders of a statement."""


_TRACEPARENT: LiteralString = "%(traceparents)s::jsonb ->> id::text"
"""The call that writes an order of this id, if its trace is sampled. Nearly always there is none."""


def _placed(source: LiteralString) -> LiteralString:
    """Returns the part of a statement that writes new orders, their first events, and the messages to confirm holds."""
    return f"""placed AS (
            INSERT INTO orders (id, number, status, items, currency, total_micros, customer_name, customer_email,
                customer_phone, shipping_address, payment_method, notes, fingerprint, caller, owner, cart_id)
            SELECT given.id, next_order_number(), 'PLACED', items, currency, total_micros, customer_name,
                customer_email, customer_phone, shipping_address, payment_method, notes, decode(fingerprint, 'hex'),
                caller, owner, cart_id
            FROM {source}
            ORDER BY given.id
            ON CONFLICT (id) DO NOTHING
            RETURNING id, number, status, version, create_time, update_time, cart_id
        ), event AS (
            INSERT INTO order_event (order_id, version, status, create_time, traceparent)
            SELECT id, version, status, create_time, {_TRACEPARENT} FROM placed
        ), message AS (
            INSERT INTO outbox (order_id, action, traceparent) SELECT id, 'CONFIRM', {_TRACEPARENT} FROM placed
        )"""


@dataclass(frozen=True, kw_only=True)
class _MovedRow(OrderRow):
    moved: bool


class Writes:
    """The batches of the writes that clients wait for: new orders, and changes of status."""

    def __init__(self, database: Database, max_waiting: int = MAX_WAITING) -> None:
        """Initializes the batches. Up to `max_waiting` writes of each kind may wait or be under way."""
        self._database = database
        self._inserts: Batcher[NewOrder, Order | None] = Batcher(
            "order.insert batch",
            partial(isolate_failures, self._insert),
            key=lambda new: new.id,
            max_waiting=max_waiting,
        )
        self._checkouts: Batcher[NewOrder, Order | Unplaced] = Batcher(
            "order.insert_from_cart batch",
            self._insert_all_from_carts,
            key=lambda new: new.cart and new.cart.id,
            max_alone=MAX_ALONE,
            max_waiting=max_waiting,
        )
        self._moves: Batcher[Move, tuple[Order | None, bool]] = Batcher(
            "order.move batch",
            partial(self._move, if_locked="SKIP LOCKED"),
            key=lambda move: move.id,
            run_alone=partial(self._move, if_locked=""),
            max_waiting=max_waiting,
        )

    @property
    def batchers(self) -> list[Batcher[Any, Any]]:
        """What the writes wait in."""
        return [self._inserts, self._checkouts, self._moves]

    def check_queue(self) -> None:
        """Raises RESOURCE_EXHAUSTED if no other new order may wait."""
        self._inserts.check_queue()
        self._checkouts.check_queue()

    async def insert(self, new: NewOrder) -> Order | None:
        """Implements `OrderStore.insert`."""
        return await self._inserts(new)

    async def insert_from_cart(self, new: NewOrder) -> Order | Unplaced:
        """Implements `OrderStore.insert_from_cart`."""
        return await self._checkouts(new)

    async def _insert(self, orders: Sequence[NewOrder]) -> Sequence[Order | None]:
        query: LiteralString = f"""
            WITH {_placed(_GIVEN)}
            SELECT id, number, version, create_time, update_time FROM placed
            """
        contents = [_content(each) for each in orders]
        rows = [_json(new, content) for new, content in zip(orders, contents, strict=True)]
        params = {"orders": Jsonb(rows), "traceparents": _traceparents(orders)}
        found = await self._database.fetch("order.insert", query, params, _Placed)
        placed = {each.id: each for each in found}
        return [_order(content, placed.get(new.id)) for new, content in zip(orders, contents, strict=True)]

    async def _insert_all_from_carts(self, orders: Sequence[NewOrder]) -> Sequence[Order | Unplaced | Exception]:
        return await isolate_failures(self._insert_from_cart, orders)

    async def _insert_from_cart(self, orders: Sequence[NewOrder]) -> Sequence[Order | Unplaced]:
        # Locks the carts first: an item that is added meanwhile waits, and then goes into the emptied cart.
        query: LiteralString = f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM {_GIVEN}
            ), locked AS MATERIALIZED (
                SELECT id, etag, update_time FROM cart WHERE id = ANY (ARRAY (SELECT cart_id FROM given))
                ORDER BY id
                FOR NO KEY UPDATE
            ), {_placed("given JOIN locked ON locked.id = cart_id AND locked.etag = cart_etag")},
            emptied AS (
                UPDATE cart SET items = '[]', etag = gen_random_uuid(), expire_time = now() + %(empty_ttl)s,
                    update_time = greatest(now(), locked.update_time)
                FROM placed JOIN locked ON locked.id = placed.cart_id
                WHERE cart.id = locked.id
            )
            SELECT given.id, coalesce(locked.etag = cart_etag, false) AS is_current, number, version, create_time,
                placed.update_time
            FROM given LEFT JOIN locked ON locked.id = cart_id LEFT JOIN placed ON placed.id = given.id
            """
        contents = [_content(each) for each in orders]
        rows = [_json(new, content) for new, content in zip(orders, contents, strict=True)]
        params = {"orders": Jsonb(rows), "empty_ttl": EMPTY_TTL, "traceparents": _traceparents(orders)}
        found = await self._database.fetch("order.insert_from_cart", query, params, _Checkout)
        outcomes = {each.id: each for each in found}
        return [_outcome(content, outcomes[new.id]) for new, content in zip(orders, contents, strict=True)]

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
                INSERT INTO order_event (order_id, version, status, create_time, traceparent)
                SELECT id, version, status, update_time, {_TRACEPARENT} FROM moved
            ), message AS (
                INSERT INTO outbox (order_id, action, traceparent)
                SELECT id, 'RELEASE', {_TRACEPARENT} FROM moved WHERE status = 'CANCELLED'
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
        params = {"moves": Jsonb(given), "traceparents": _traceparents(moves)}
        rows = await self._database.fetch("order.move", query, params, _MovedRow)
        found = {row.id: _moved(row) for row in rows}
        return [found.get(each.id, (None, False)) for each in moves]


def _traceparents(writes: Sequence[NewOrder] | Sequence[Move]) -> Jsonb:
    """Returns the calls of sampled traces, by the id of the order."""
    return Jsonb({str(each.id): each.traceparent for each in writes if each.traceparent})


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
    if new.cart:
        row["cart_id"], row["cart_etag"] = str(new.cart.id), str(new.cart.etag)
    return row


def _order(content: dict[str, Any], placed: _Placed | None) -> Order | None:
    """Returns a new order as it was written."""
    if placed is None:
        return None
    return instance(
        Order, content | vars(placed) | {"status": Status.PLACED, "total_micros": Decimal(content["total_micros"])}
    )


def _outcome(content: dict[str, Any], checkout: _Checkout) -> Order | Unplaced:
    """Returns the order that was made of a cart, or why none was."""
    decided = dict(vars(checkout))
    if not decided.pop("is_current"):
        return Unplaced.CART_CHANGED
    return _order(content, instance(_Placed, decided) if checkout.number else None) or Unplaced.ID_TAKEN


def _moved(row: _MovedRow) -> tuple[Order | None, bool]:
    columns = dict(vars(row))
    moved: bool = columns.pop("moved")
    order = order_of(instance(OrderRow, columns))
    return (order, moved) if isinstance(order, Order) else (None, False)
