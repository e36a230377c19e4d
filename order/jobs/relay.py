"""The relay: tells the product service which reservations to confirm and which to release.

It claims messages by lease, so that no transaction spans a call, any number of replicas share the work, and what a
crashed one had claimed comes back. A message may be sent twice; the product service then answers as before.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from order.domain import Status
from order.stock import MOST_TOGETHER, Reservation, State, Stock
from order.store import OrderStore
from runtime.database import Database
from runtime.errors import ApiError
from runtime.worker import Seldom, Worker

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the outbox. With LEASE it bounds how late a cancelled order's stock is back."""

LEASE = 6.0
"""Seconds until a claimed message comes back; longer than a call may take."""

BATCH = MOST_TOGETHER
"""Messages that are claimed, and sent together, at a time."""

LONGEST_WAIT = 5.0
"""Seconds until a message that failed often is sent again, where no message gets through."""

LONGEST_WAIT_ALONE = 30.0
"""Seconds until a message that failed often is sent again, where others get through: the fault is its own."""

HOPELESS_WAIT = 300.0
"""Seconds until a message is sent again that people have to look after."""

LOUD_ATTEMPTS = 5
"""Attempts after which the log says that a message does not get through."""

SPACING = 60.0
"""Seconds between two lines in the log about messages that do not get through."""

Outcome = float | Exception | None
"""What came of a message: None where it was told, the seconds to wait where people have to look after it, or why it
could not be sent."""


@dataclass(frozen=True)
class Message:
    id: int
    order_id: UUID
    action: str
    attempts: int


class Outbox:
    """The table of messages.

    Claims and deletions do not wait for the disk: one that a crash of the database takes back only means that a message
    is told twice, which does no harm. The setting ends with the statement, which is a transaction of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int, lease: float) -> list[Message]:
        """Takes messages that are due; they are due again after `lease` seconds."""
        return await self._database.fetch(
            "outbox.claim",
            """
            UPDATE outbox SET attempts = attempts + 1, due_time = now() + make_interval(secs => %(lease)s)
            FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait
            WHERE id = ANY (ARRAY(
                SELECT id FROM outbox WHERE due_time <= now() ORDER BY due_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            ))
            RETURNING id, order_id, action, attempts
            """,
            {"limit": limit, "lease": lease},
            Message,
        )

    async def delete(self, ids: list[int]) -> None:
        await self._database.fetch(
            "outbox.delete",
            """
            DELETE FROM outbox USING (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait
            WHERE id = ANY (%(ids)s)
            """,
            {"ids": ids},
            Message,
        )

    async def postpone(self, ids: list[int], seconds: list[float]) -> None:
        await self._database.fetch(
            "outbox.postpone",
            """
            UPDATE outbox SET due_time = now() + make_interval(secs => late.seconds)
            FROM unnest(%(ids)s::bigint[], %(seconds)s::float8[]) AS late (id, seconds) WHERE outbox.id = late.id
            """,
            {"ids": ids, "seconds": seconds},
            Message,
        )


class Relay:
    def __init__(self, database: Database, orders: OrderStore, stock: Stock) -> None:
        self._outbox = Outbox(database)
        self._orders = orders
        self._stock = stock
        self._may_complain = Seldom(SPACING)
        self._worker = Worker("relay", self.step, INTERVAL)
        self.wake = self._worker.wake
        self.run = self._worker.run

    async def step(self) -> bool:
        """Sends one batch. Answers whether more may be due. No message keeps another from being sent, or deleted."""
        batch = await self._outbox.claim(BATCH, LEASE)
        if not batch:
            return False
        outcomes = await self._send(batch)
        sent = [message.id for message, outcome in zip(batch, outcomes, strict=True) if outcome is None]
        late: dict[int, float] = {}
        for message, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                late[message.id] = _wait(message.attempts, alone=bool(sent))
                self._complain(message, outcome)
            elif outcome is not None:
                late[message.id] = outcome
        if sent:
            await self._outbox.delete(sent)
        if late:
            await self._outbox.postpone(list(late), list(late.values()))
        return len(batch) == BATCH and bool(sent)

    async def _send(self, batch: Sequence[Message]) -> list[Outcome]:
        """Sends messages, those of one action in one call; what came of each."""
        ids = {
            action: [message.order_id for message in batch if message.action == action]
            for action in ("CONFIRM", "RELEASE")
        }
        confirmed, released = await asyncio.gather(self._confirm(ids["CONFIRM"]), self._release(ids["RELEASE"]))
        outcomes: dict[str, dict[UUID, Outcome]] = {"CONFIRM": confirmed, "RELEASE": released}
        return [outcomes[message.action][message.order_id] for message in batch]

    async def _release(self, order_ids: Sequence[UUID]) -> dict[UUID, Outcome]:
        if not order_ids:
            return {}
        try:
            outcomes = await self._stock.batch_release(order_ids)
        except Exception as error:
            return dict.fromkeys(order_ids, error)
        for order_id, outcome in zip(order_ids, outcomes, strict=True):
            if outcome is None:
                log.info("stock of order %s released", order_id)
        return dict(zip(order_ids, outcomes, strict=True))

    async def _confirm(self, order_ids: Sequence[UUID]) -> dict[UUID, Outcome]:
        if not order_ids:
            return {}
        try:
            reservations = await self._stock.batch_confirm(order_ids)
        except Exception as error:
            return dict.fromkeys(order_ids, error)
        outcomes: dict[UUID, Outcome] = {}
        without: dict[UUID, Reservation | None] = {}
        for order_id, reservation in zip(order_ids, reservations, strict=True):
            if isinstance(reservation, Exception):
                outcomes[order_id] = reservation
            elif reservation and reservation.state is State.CONFIRMED:
                outcomes[order_id] = None
            else:
                without[order_id] = reservation
        return outcomes | await self._look_after(without)

    async def _look_after(self, without: Mapping[UUID, Reservation | None]) -> dict[UUID, Outcome]:
        """What becomes of orders whose reservation cannot be confirmed: nothing where they were cancelled."""
        if not without:
            return {}
        try:
            statuses = await self._orders.statuses(list(without))
        except Exception as error:
            return dict.fromkeys(without, error)
        outcomes: dict[UUID, Outcome] = {}
        for order_id, reservation in without.items():
            if statuses.get(order_id) in (None, Status.CANCELLED):
                outcomes[order_id] = None
                continue
            # Only a database that was restored from a backup can have lost what it had answered.
            log.error(
                "order %s has no stock: its reservation is %s; was the product database restored?",
                order_id,
                reservation.state.name if reservation else "unknown",
            )
            outcomes[order_id] = HOPELESS_WAIT
        return outcomes

    def _complain(self, message: Message, error: Exception) -> None:
        if message.attempts >= LOUD_ATTEMPTS and self._may_complain():
            log.warning(
                "message %d (%s of order %s) was tried %d times: %s",
                message.id,
                message.action,
                message.order_id,
                message.attempts,
                error,
                exc_info=None if isinstance(error, ApiError) else error,
            )


def _wait(attempts: int, *, alone: bool) -> float:
    """Seconds until a message that could not be sent is sent again; `alone`: others got through."""
    longest = LONGEST_WAIT_ALONE if alone else LONGEST_WAIT
    return min(2.0 ** min(attempts - 1, 10), longest)
