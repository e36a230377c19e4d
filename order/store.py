"""The orders and their event logs in PostgreSQL. Each method is one statement, and so one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from order.domain import Draft, Item, Order, Status
from order.writes import Move, New, Writes
from runtime.arrays import uuids
from runtime.batch import MOST_WAITING, Batcher
from runtime.database import Database
from runtime.pages import Position

_COLUMNS: LiteralString = (
    "id, number, status, items, currency, total_micros, customer_name, customer_email, customer_phone,"
    " shipping_address, payment_method, notes, fingerprint, version, create_time, update_time"
)


WRITE_PROBE: LiteralString = """
    WITH placed AS (
        INSERT INTO orders (id, status) VALUES (gen_random_uuid(), 'EXPIRED') RETURNING id
    ), event AS (
        INSERT INTO order_event (order_id, version, status, create_time) SELECT id, 1, 'PLACED', now() FROM placed
    )
    INSERT INTO outbox (order_id, action) SELECT id, 'CONFIRM' FROM placed
    """
"""Writes where a new order does, to be rolled back."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which orders a list has; an empty field asks for nothing."""

    status: str
    customer_email: str
    number: str


@dataclass(frozen=True)
class LogEntry:
    """An order's state and one entry of its log; without entries left, the state alone."""

    id: UUID
    state_version: int
    state_status: str
    state_time: datetime
    version: int | None
    status: str | None
    create_time: datetime | None


@dataclass(frozen=True)
class Standing:
    """How far an order is, and what was ordered; `pending`: a message on it waits to be sent."""

    id: UUID
    status: str
    items: list[Item]
    pending: bool


@dataclass(frozen=True)
class Live:
    """An order that was not cancelled."""

    id: UUID
    number: str
    status: str
    items: list[Item]


@dataclass(frozen=True)
class _Found:
    id: UUID
    status: str


class OrderStore:
    def __init__(
        self, database: Database, searches: Database | None = None, *, most_waiting: int = MOST_WAITING
    ) -> None:
        """`searches` has the connections for lists; without it they are those of everything else. `most_waiting`: calls
        of each kind that may wait for a batch."""
        self._database = database
        self._searches = searches or database
        self._writes = Writes(database, most_waiting)
        self._finds: Batcher[UUID, Order | None] = Batcher("order.find batch", self._find, most_waiting=most_waiting)

    async def check_admission(self) -> None:
        """Raises where an insert is known to be refused (the database is away, full or read-only): before stock is set
        aside for it, which nobody could free while no tombstone can be written. So too where too many wait."""
        self._writes.check_queue()
        await self._database.check_admission()

    async def insert(self, order_id: UUID, caller: str, draft: Draft, currency: str, items: list[Item]) -> Order | None:
        """Writes a new order, its first event and the message that confirms its hold; None if the id is taken."""
        return await self._writes.insert(New(order_id, caller, draft, draft.fingerprint(), currency, items))

    async def find(self, order_id: UUID) -> Order | None:
        """The row under an id, a tombstone too."""
        return await self._finds(order_id)

    async def _find(self, order_ids: Sequence[UUID]) -> Sequence[Order | None]:
        query: LiteralString = f"""
            SELECT {_COLUMNS} FROM orders WHERE id = ANY (ARRAY (SELECT unnest(%(ids)s::uuid[])))
            """
        rows = await self._database.fetch("order.find", query, {"ids": uuids(order_ids)}, Order)
        found = {row.id: row for row in rows}
        return [found.get(each) for each in order_ids]

    async def get(self, order_id: UUID) -> Order | None:
        order = await self.find(order_id)
        return None if order is None or order.expired else order

    async def page(self, want: Filter, after: Position | None, limit: int) -> list[Order]:
        """Orders, newest first, that come after a place in that sequence."""
        query: LiteralString = f"SELECT {_COLUMNS} FROM orders WHERE status <> 'EXPIRED'"
        order: LiteralString = ""
        if want.status and not want.customer_email:
            # In this form only orders_by_status has the sequence: orders_newest would be read up to the first of them.
            query += " AND status = ANY (ARRAY[%(status)s])"
            order = "status, "
        elif want.status:
            query += " AND status = %(status)s"
        if want.customer_email:
            query += " AND lower(customer_email COLLATE pg_c_utf8) = lower(%(email)s COLLATE pg_c_utf8)"
        if want.number:
            query += " AND number = %(number)s"
        if after:
            query += " AND (create_time, id) < (%(time)s, %(id)s)"
        query += f" ORDER BY {order}create_time DESC, id DESC LIMIT %(limit)s"
        time, last = after or (None, None)
        return await self._searches.fetch(
            "order.list",
            query,
            {
                "status": want.status,
                "email": want.customer_email,
                "number": want.number,
                "time": time,
                "id": last,
                "limit": limit,
            },
            Order,
            # One status has a row, another one half of all.
            replan=bool(want.status or want.customer_email),
        )

    async def move(self, order_id: UUID, target: Status, version: int | None) -> tuple[Order | None, bool]:
        """Gives an order its next status, with the event, and for a cancelled one the message that frees its stock.

        Returns the order as it is then, and whether it was moved: it is not where its status does not lead there, or it
        has another version than asked for. None if there is no such order.
        """
        return await self._writes.move(Move(order_id, target, version))

    async def bury(self, order_ids: list[UUID]) -> None:
        """Writes a tombstone under each id that has no order."""
        # In one sequence everywhere, so that two replicas cannot deadlock.
        await self._database.fetch(
            "order.bury",
            """
            INSERT INTO orders (id, status)
            SELECT id, 'EXPIRED' FROM unnest(%(ids)s::uuid[]) AS given (id) ORDER BY id
            ON CONFLICT (id) DO NOTHING
            """,
            {"ids": order_ids},
            _Found,
        )

    async def statuses(self, order_ids: list[UUID]) -> dict[UUID, str]:
        """What is under each id, tombstones too."""
        rows = await self._database.fetch(
            "order.statuses",
            "SELECT id, status FROM orders WHERE id = ANY (%(ids)s)",
            {"ids": order_ids},
            _Found,
        )
        return {row.id: row.status for row in rows}

    async def standing(self, order_ids: list[UUID]) -> dict[UUID, Standing]:
        """What is under each id, tombstones too, and whether a message on it waits to be sent."""
        rows = await self._database.fetch(
            "order.standing",
            # Messages have no index by order: all that wait are read once, and not once for each order.
            """
            WITH waiting AS MATERIALIZED (SELECT DISTINCT order_id FROM outbox WHERE order_id = ANY (%(ids)s))
            SELECT id, status, items, waiting.order_id IS NOT NULL AS pending
            FROM orders LEFT JOIN waiting ON waiting.order_id = orders.id WHERE id = ANY (%(ids)s)
            """,
            {"ids": order_ids},
            Standing,
        )
        return {row.id: row for row in rows}

    async def live(self, after: UUID | None, limit: int) -> list[Live]:
        """Orders that were not cancelled by id, those that follow the id `after`."""
        # Two statements: in one, planned for any `after`, the condition on it would leave nothing to the index.
        beyond: LiteralString = "AND id > %(after)s" if after else ""
        return await self._database.fetch(
            "order.live",
            f"""
            SELECT id, number, status, items FROM orders
            WHERE status NOT IN ('CANCELLED', 'EXPIRED') {beyond}
            ORDER BY id LIMIT %(limit)s
            """,
            {"after": after, "limit": limit},
            Live,
        )

    async def any(self) -> bool:
        """Whether there is an order, a cancelled one too."""
        rows = await self._database.fetch(
            "order.any", "SELECT id, status FROM orders WHERE status <> 'EXPIRED' LIMIT 1", {}, _Found
        )
        return bool(rows)

    async def retell(self) -> None:
        """Has the relay send at once what waits for people: the messages on orders that had no stock."""
        await self._database.fetch(
            "order.retell",
            "UPDATE outbox SET due_time = now() WHERE due_time > now() + interval '30 seconds'",
            {},
            _Found,
        )

    async def logs(self, order_ids: list[UUID]) -> list[LogEntry]:
        """The event logs of many orders, each by version; nothing of an order that does not exist."""
        return await self._database.fetch(
            "order.logs",
            """
            SELECT o.id, o.version AS state_version, o.status AS state_status, o.update_time AS state_time,
                e.version, e.status, e.create_time
            FROM orders AS o LEFT JOIN order_event AS e ON e.order_id = o.id
            WHERE o.id = ANY (%(ids)s) AND o.status <> 'EXPIRED'
            ORDER BY o.id, e.version
            """,
            {"ids": order_ids},
            LogEntry,
        )
