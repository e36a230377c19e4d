"""The relay: tells the product service which reservations to confirm and which to release.

It claims messages by lease, so that no transaction spans a call, any number of replicas share the work, and what a
crashed one had claimed comes back. A message may be sent twice; the product service then answers as before.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from order.catalog import State, Stock
from order.domain import Status
from order.store import OrderStore
from order.worker import Seldom, Worker
from runtime.database import Database
from runtime.errors import ApiError

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the outbox. With LEASE it bounds how late a cancelled order's stock is back."""

LEASE = 6.0
"""Seconds until a claimed message comes back; longer than a call may take."""

BATCH = 32
"""Messages that are claimed, and sent side by side, at a time."""

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
    """The table of messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int, lease: float) -> list[Message]:
        """Takes messages that are due; they are due again after `lease` seconds."""
        return await self._database.fetch(
            "outbox.claim",
            """
            UPDATE outbox SET attempts = attempts + 1, due_time = now() + make_interval(secs => %(lease)s)
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
            "outbox.delete", "DELETE FROM outbox WHERE id = ANY (%(ids)s)", {"ids": ids}, Message
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
        """Sends messages, side by side; what came of each."""
        return await asyncio.gather(*(self._try(message) for message in batch))

    async def _try(self, message: Message) -> Outcome:
        try:
            if message.action == "CONFIRM":
                return await self._confirm(message.order_id)
            await self._stock.release(message.order_id)
            log.info("stock of order %s released", message.order_id)
            return None
        except Exception as error:
            return error

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

    async def _confirm(self, order_id: UUID) -> float | None:
        reservation = await self._stock.confirm(order_id)
        if reservation and reservation.state is State.CONFIRMED:
            return None
        status = (await self._orders.statuses([order_id])).get(order_id)
        if status in (None, Status.CANCELLED):
            return None
        # Only a database that was restored from a backup can have lost what it had answered.
        log.error(
            "order %s has no stock: its reservation is %s; was the product database restored?",
            order_id,
            reservation.state.name if reservation else "unknown",
        )
        return HOPELESS_WAIT


def _wait(attempts: int, *, alone: bool) -> float:
    """Seconds until a message that could not be sent is sent again; `alone`: others got through."""
    longest = LONGEST_WAIT_ALONE if alone else LONGEST_WAIT
    return min(2.0 ** min(attempts - 1, 10), longest)
