"""The orders and their event logs in PostgreSQL. Each method is one statement, and so one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from order.domain import Draft, Item, Order, OrderQuery, Status, Tombstone
from order.rows import COLUMNS, OrderRow, order_of
from order.writes import CartVersion, Move, NewOrder, Unplaced, Writes
from runtime.arrays import uuids
from runtime.batch import MAX_WAITING, Batcher
from runtime.database import Database
from runtime.pages import Position
from runtime.telemetry.trace_context import present_traceparent

WRITE_PROBE: LiteralString = """
    WITH placed AS (
        INSERT INTO orders (id, status) VALUES (gen_random_uuid(), 'EXPIRED') RETURNING id
    ), event AS (
        INSERT INTO order_event (order_id, version, status, create_time) SELECT id, 1, 'PLACED', now() FROM placed
    )
    INSERT INTO outbox (order_id, action) SELECT id, 'CONFIRM' FROM placed
    """
"""Writes to the same tables as a new order, to be rolled back."""


@dataclass(frozen=True)
class LogEntry:
    """The state of an order and one entry of its log; only the state if the log was pruned."""

    id: UUID
    state_version: int
    state_status: str
    state_time: datetime
    version: int | None
    status: str | None
    create_time: datetime | None
    traceparent: str | None


@dataclass(frozen=True)
class OrderSummary:
    """The status and the items of an order or a tombstone, which has neither."""

    id: UUID
    status: Status | None
    items: list[Item]
    pending: bool
    """Whether a message about the order waits in the outbox."""


@dataclass(frozen=True)
class OpenOrder:
    """An order that is not cancelled."""

    id: UUID
    number: str
    status: Status
    items: list[Item]


@dataclass(frozen=True)
class _IdAndStatus:
    id: UUID
    status: Status


@dataclass(frozen=True)
class _IdAndOwner:
    id: UUID
    owner: str


@dataclass(frozen=True)
class _Exists:
    exists: bool


class OrderStore:
    """Reads and writes orders."""

    def __init__(self, database: Database, searches: Database | None = None, *, max_waiting: int = MAX_WAITING) -> None:
        """Initializes the store.

        Args:
            database: The connections of all methods but `list`.
            searches: The connections of `list`; by default `database`.
            max_waiting: The number of calls of each kind that may wait for a batch.
        """
        self._database = database
        self._searches = searches or database
        self._writes = Writes(database, max_waiting)
        self._finds: Batcher[UUID, Order | Tombstone | None] = Batcher(
            "order.find batch", self._find, max_waiting=max_waiting
        )
        self._owners: Batcher[UUID, str | None] = Batcher(
            "order.get_owner batch", self._get_owners, max_waiting=max_waiting
        )

    @property
    def batchers(self) -> list[Batcher[Any, Any]]:
        """What the calls wait in."""
        return [self._finds, self._owners, *self._writes.batchers]

    async def check_admission(self) -> None:
        """Checks whether an insert would be refused: the database is unavailable, full or read-only, or too many wait.

        Called before stock is reserved, which could not be released while no tombstone can be written.

        Raises:
            ApiError: What the insert would raise.
        """
        self._writes.check_queue()
        await self._database.check_admission()

    async def insert(
        self, order_id: UUID, caller: str, draft: Draft, currency: str, items: list[Item], owner: str = ""
    ) -> Order | None:
        """Writes a new order, its first event, and the message that confirms its hold.

        Args:
            order_id: The id of the order.
            caller: The scope of its idempotency key.
            draft: What the client wrote.
            currency: The currency of all prices.
            items: The items as they were reserved.
            owner: The customer whose order it is; empty if it is nobody's.

        Returns:
            The order; None if the id is taken, by an order or a tombstone.
        """
        return await self._writes.insert(
            NewOrder(order_id, caller, draft, currency, items, owner, traceparent=present_traceparent())
        )

    async def insert_from_cart(
        self,
        order_id: UUID,
        cart: CartVersion,
        caller: str,
        draft: Draft,
        currency: str,
        items: list[Item],
        owner: str,
    ) -> Order | Unplaced:
        """Does the same as `insert` and empties the cart, if it still has this version.

        Returns:
            The order, or why there is none.
        """
        new = NewOrder(order_id, caller, draft, currency, items, owner, cart, present_traceparent())
        return await self._writes.insert_from_cart(new)

    async def find(self, order_id: UUID) -> Order | Tombstone | None:
        """Returns what is stored under an id; None if nothing is. A failover does not lose it."""
        found = await self._finds(order_id)
        if found:
            await self._database.confirm_replicated()
        return found

    async def _find(self, order_ids: Sequence[UUID]) -> Sequence[Order | Tombstone | None]:
        query: LiteralString = f"SELECT {COLUMNS} FROM orders WHERE id = ANY (ARRAY (SELECT unnest(%(ids)s::uuid[])))"
        rows = await self._database.fetch("order.find", query, {"ids": uuids(order_ids)}, OrderRow)
        found = {row.id: order_of(row) for row in rows}
        return [found.get(each) for each in order_ids]

    async def get(self, order_id: UUID) -> Order | None:
        """Returns an order; None if no order has this id."""
        found = await self._finds(order_id)
        return found if isinstance(found, Order) else None

    async def get_owner(self, order_id: UUID) -> str | None:
        """Returns the owner of an order, which is empty if it is nobody's; None if no order has this id."""
        return await self._owners(order_id)

    async def _get_owners(self, order_ids: Sequence[UUID]) -> Sequence[str | None]:
        rows = await self._database.fetch(
            "order.get_owner",
            """
            SELECT id, owner FROM orders
            WHERE id = ANY (ARRAY (SELECT unnest(%(ids)s::uuid[]))) AND status <> 'EXPIRED'
            """,
            {"ids": uuids(order_ids)},
            _IdAndOwner,
        )
        found = {row.id: row.owner for row in rows}
        return [found.get(each) for each in order_ids]

    async def move(
        self, order_id: UUID, target: Status, version: int | None, owner: str | None = None
    ) -> tuple[Order | None, bool]:
        """Gives an order its next status, writes the event, and if it is cancelled the message that releases its stock.

        Args:
            order_id: The order.
            target: The status that it gets, if it may follow the present one.
            version: The only version that is changed; None for any.
            owner: The only owner whose order is changed and returned; None for any.

        Returns:
            The order as it is afterwards (None if no order has this id and owner), and whether it was changed.
        """
        return await self._writes.move(Move(order_id, target, version, owner, present_traceparent()))

    async def insert_tombstones(self, order_ids: Sequence[UUID]) -> None:
        """Writes a tombstone under each id that has no order."""
        await self._database.execute(
            "order.insert_tombstones",
            # Every replica writes in the sequence of the ids, so two of them cannot deadlock.
            """
            INSERT INTO orders (id, status)
            SELECT id, 'EXPIRED' FROM unnest(%(ids)s::uuid[]) AS given (id) ORDER BY id
            ON CONFLICT (id) DO NOTHING
            """,
            {"ids": list(order_ids)},
        )

    async def get_statuses(self, order_ids: Sequence[UUID]) -> dict[UUID, Status]:
        """Returns the statuses of those orders that exist, by id."""
        rows = await self._database.fetch(
            "order.get_statuses",
            "SELECT id, status FROM orders WHERE id = ANY (%(ids)s) AND status <> 'EXPIRED'",
            {"ids": list(order_ids)},
            _IdAndStatus,
        )
        return {row.id: row.status for row in rows}

    async def get_summaries(self, order_ids: Sequence[UUID]) -> dict[UUID, OrderSummary]:
        """Returns summaries of the orders and tombstones that exist, by id."""
        rows = await self._database.fetch(
            "order.get_summaries",
            # The outbox has no index by order. So it is read once, not once for each order.
            """
            WITH waiting AS MATERIALIZED (SELECT DISTINCT order_id FROM outbox WHERE order_id = ANY (%(ids)s))
            SELECT id, nullif(status, 'EXPIRED') AS status, items, waiting.order_id IS NOT NULL AS pending
            FROM orders LEFT JOIN waiting ON waiting.order_id = orders.id WHERE id = ANY (%(ids)s)
            """,
            {"ids": list(order_ids)},
            OrderSummary,
        )
        return {row.id: row for row in rows}

    async def list_open(self, after: UUID | None, limit: int) -> list[OpenOrder]:
        """Returns at most `limit` orders that are not cancelled, by id: those after `after`, or the first ones."""
        # Two statements: one for any `after` would have a plan that does not use the index for it.
        beyond: LiteralString = "AND id > %(after)s" if after else ""
        statement: LiteralString = f"""
            SELECT id, number, status, items FROM orders
            WHERE status NOT IN ('CANCELLED', 'EXPIRED') {beyond}
            ORDER BY id LIMIT %(limit)s
            """
        return await self._database.fetch("order.list_open", statement, {"after": after, "limit": limit}, OpenOrder)

    async def has_orders(self) -> bool:
        """Returns whether there is any order, cancelled ones included."""
        row = await self._database.fetch_one(
            "order.has_orders",
            "SELECT EXISTS (SELECT FROM orders WHERE status <> 'EXPIRED') AS exists",
            {},
            _Exists,
        )
        return row is not None and row.exists

    async def expedite_parked(self) -> None:
        """Makes the messages due that the relay has parked, because their orders had no stock."""
        await self._database.execute(
            "order.expedite_parked",
            "UPDATE outbox SET due_time = now() WHERE due_time > now() + interval '30 seconds'",
            {},
        )

    async def logs(self, order_ids: list[UUID]) -> list[LogEntry]:
        """Returns the event logs of those orders that exist, by id and version."""
        return await self._database.fetch(
            "order.logs",
            """
            SELECT o.id, o.version AS state_version, o.status AS state_status, o.update_time AS state_time,
                e.version, e.status, e.create_time, e.traceparent
            FROM orders AS o LEFT JOIN order_event AS e ON e.order_id = o.id
            WHERE o.id = ANY (%(ids)s) AND o.status <> 'EXPIRED'
            ORDER BY o.id, e.version
            """,
            {"ids": order_ids},
            LogEntry,
        )

    async def list(self, query: OrderQuery, after: Position | None, limit: int) -> list[Order]:
        """Returns at most `limit` orders of a query, newest first; those after a position, or the first ones.

        A position is the time of creation and the id of an order.
        """
        statement: LiteralString = f"SELECT {COLUMNS} FROM orders WHERE status <> 'EXPIRED'"
        sequence: LiteralString = "create_time DESC, id DESC"
        if query.owner is not None:
            # The second condition is that of the index orders_by_owner.
            statement += " AND owner = %(owner)s AND owner <> ''"
        if query.status and not query.customer_email and query.owner is None:
            # Only in this form does the index orders_by_status have the sequence. Otherwise PostgreSQL would read
            # orders_newest until it finds enough orders of the status.
            statement += " AND status = ANY (ARRAY[%(status)s])"
            sequence = "orders.status, create_time DESC, id DESC"
        elif query.status:
            statement += " AND status = %(status)s"
        if query.customer_email:
            statement += " AND lower(customer_email COLLATE pg_c_utf8) = lower(%(customer_email)s COLLATE pg_c_utf8)"
        if query.number:
            statement += " AND number = %(number)s"
        params: dict[str, object] = {**vars(query), "limit": limit}
        if after:
            statement += " AND (create_time, id) < (%(create_time)s, %(id)s)"
            params["create_time"], params["id"] = after
        statement += f" ORDER BY {sequence} LIMIT %(limit)s"
        # A plan that fits all values does not exist: one status may have a single order, another half of all.
        replan = bool(query.status or query.customer_email or query.owner)
        return await self._searches.fetch("order.list", statement, params, Order, replan=replan)
