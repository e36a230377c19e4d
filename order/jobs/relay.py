"""The relay: sends the messages of the outbox, which confirm and release reservations at the product service.

A relay claims messages with a lease. So no transaction lasts as long as a call, any number of replicas share the work,
and the messages that a crashed relay has claimed become due again. A message may be sent twice, which changes nothing.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from opentelemetry.context import Context

from order import stock as stock_module
from order.domain import Status
from order.stock import Reservation, ReservationState, Stock
from order.store import OrderStore
from runtime.database import Database
from runtime.errors import ApiError
from runtime.logs import Throttle
from runtime.telemetry.spans import span
from runtime.telemetry.trace_context import links_to

log = logging.getLogger(__name__)

RELAY_POLL_INTERVAL = 1.0
"""Time between two polls of the outbox, in seconds, unless the relay is woken. Together with CLAIM_LEASE it bounds the
delay until the stock of a cancelled order is available again."""

CLAIM_LEASE = 6.0
"""Time until a claimed message is due again, in seconds. It is longer than the time limit of a call."""

BATCH_SIZE = stock_module.MAX_BATCH
"""Messages that are claimed and sent together."""

MAX_RETRY_DELAY = 5.0
"""The longest delay of a message that failed, in seconds, while no message gets through."""

MAX_SINGLE_RETRY_DELAY = 30.0
"""The longest delay of a message that failed, in seconds, while others get through: the fault is its own."""

PARKED_DELAY = 300.0
"""The delay of a message that needs manual intervention, in seconds."""

WARN_ATTEMPTS = 5
"""Attempts after which a message that fails is logged."""

WARNING_INTERVAL = 60.0
"""The shortest time between two warnings about messages that fail, in seconds."""


class Action(StrEnum):
    """What a message asks of the product service."""

    CONFIRM = "CONFIRM"
    RELEASE = "RELEASE"


@dataclass(frozen=True)
class Message:
    """A row of the outbox."""

    id: int
    order_id: UUID
    action: Action
    attempts: int
    """Claims so far, the present one included."""
    traceparent: str | None
    """The call that wrote it, if its trace is sampled."""


@dataclass(frozen=True)
class Parked:
    """The outcome of a message that only people can help."""


Outcome = Parked | Exception | None
"""What happened to a message: None if it was sent, or the error."""


class Outbox:
    """The table of messages.

    Claims and deletions do not wait for the disk. If a crash of the database undoes one, a message is sent twice. The
    setting ends with the statement, which is a transaction of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int, lease: float) -> list[Message]:
        """Claims and returns at most `limit` due messages. They are due again after `lease` seconds."""
        return await self._database.fetch(
            "outbox.claim",
            """
            UPDATE outbox SET attempts = attempts + 1, due_time = now() + make_interval(secs => %(lease)s)
            FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait
            WHERE id = ANY (ARRAY(
                SELECT id FROM outbox WHERE due_time <= now() ORDER BY due_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            ))
            RETURNING id, order_id, action, attempts, traceparent
            """,
            {"limit": limit, "lease": lease},
            Message,
        )

    async def delete(self, ids: Sequence[int]) -> None:
        """Deletes messages that were sent."""
        await self._database.execute(
            "outbox.delete",
            """
            DELETE FROM outbox USING (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait
            WHERE id = ANY (%(ids)s)
            """,
            {"ids": list(ids)},
        )

    async def postpone(self, delays: Mapping[int, float]) -> None:
        """Makes messages due after delays: seconds by message id."""
        await self._database.execute(
            "outbox.postpone",
            """
            UPDATE outbox SET due_time = now() + make_interval(secs => late.seconds)
            FROM unnest(%(ids)s::bigint[], %(seconds)s::float8[]) AS late (id, seconds) WHERE outbox.id = late.id
            """,
            {"ids": list(delays), "seconds": list(delays.values())},
        )


class Relay:
    """Sends messages. Any number of relays may run at the same time."""

    def __init__(self, database: Database, orders: OrderStore, stock: Stock) -> None:
        self._outbox = Outbox(database)
        self._orders = orders
        self._stock = stock
        self.sent: Counter[str] = Counter({each.value: 0 for each in Action})
        """Messages that were sent since the process started, by action."""
        self.failures: Counter[str] = Counter({each.value: 0 for each in Action})
        """Attempts to send a message that failed, by action. One whose order has lost its stock fails, too."""
        self._may_warn = Throttle(WARNING_INTERVAL)

    async def step(self) -> bool:
        """Sends one batch. Returns whether more messages may be due.

        A message that fails does not keep another one from being sent.
        """
        batch = await self._outbox.claim(BATCH_SIZE, CLAIM_LEASE)
        if not batch:
            return False
        with _linked(batch):
            return await self._settle(batch)

    async def _settle(self, batch: Sequence[Message]) -> bool:
        """Sends a batch and notes the outcomes. Returns whether more messages may be due."""
        outcomes = dict(zip(batch, await self._send(batch), strict=True))
        sent = [message.id for message, outcome in outcomes.items() if outcome is None]
        delays: dict[int, float] = {}
        for message, outcome in outcomes.items():
            counts = self.sent if outcome is None else self.failures
            counts[message.action.value] += 1
            if isinstance(outcome, Parked):
                delays[message.id] = PARKED_DELAY
            elif outcome is not None:
                delays[message.id] = _retry_delay(message.attempts, single=bool(sent))
                self._warn(message, outcome)
        if sent:
            await self._outbox.delete(sent)
        if delays:
            await self._outbox.postpone(delays)
        return len(batch) == BATCH_SIZE and bool(sent)

    async def _send(self, batch: Sequence[Message]) -> list[Outcome]:
        """Sends messages, those of one action in one call. Returns their outcomes."""
        confirms = [message.order_id for message in batch if message.action is Action.CONFIRM]
        releases = [message.order_id for message in batch if message.action is Action.RELEASE]
        confirmed, released = await asyncio.gather(self._confirm(confirms), self._release(releases))
        outcomes = {Action.CONFIRM: confirmed, Action.RELEASE: released}
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
        unconfirmed: dict[UUID, Reservation | None] = {}
        for order_id, reservation in zip(order_ids, reservations, strict=True):
            if isinstance(reservation, Exception):
                outcomes[order_id] = reservation
            elif reservation and reservation.state is ReservationState.CONFIRMED:
                outcomes[order_id] = None
            else:
                unconfirmed[order_id] = reservation
        return outcomes | await self._check_unconfirmed(unconfirmed)

    async def _check_unconfirmed(self, reservations: Mapping[UUID, Reservation | None]) -> dict[UUID, Outcome]:
        """Returns the outcomes of messages whose reservation cannot be confirmed: sent, if its order is cancelled."""
        if not reservations:
            return {}
        try:
            statuses = await self._orders.get_statuses(list(reservations))
        except Exception as error:
            return dict.fromkeys(reservations, error)
        outcomes: dict[UUID, Outcome] = {}
        for order_id, reservation in reservations.items():
            if statuses.get(order_id) in (None, Status.CANCELLED):
                outcomes[order_id] = None
                continue
            # Only a database that was restored from a backup can lose a reservation.
            log.error(
                "order %s has no stock: its reservation is %s; was the product database restored?",
                order_id,
                reservation.state if reservation else "missing",
            )
            outcomes[order_id] = Parked()
        return outcomes

    def _warn(self, message: Message, error: Exception) -> None:
        if message.attempts >= WARN_ATTEMPTS and self._may_warn():
            log.warning(
                "message %d (%s of order %s) failed %d times: %s",
                message.id,
                message.action,
                message.order_id,
                message.attempts,
                error,
                exc_info=None if isinstance(error, ApiError) else error,
            )


def _linked(batch: Sequence[Message]) -> AbstractContextManager[object]:
    """Returns the span of sending messages, the first of a trace; none if no message is of a sampled one."""
    links = links_to([message.traceparent for message in batch])
    return span("outbox.send", context=Context(), links=links) if links else nullcontext()


def _retry_delay(attempts: int, *, single: bool) -> float:
    """Returns the delay of a message that failed, in seconds. `single`: other messages got through."""
    maximum = MAX_SINGLE_RETRY_DELAY if single else MAX_RETRY_DELAY
    return min(2.0 ** min(attempts - 1, 10), maximum)
