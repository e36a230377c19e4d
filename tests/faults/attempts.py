"""What the clients of a shop that breaks know together: what they tried, and what they were told."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from shop.order.v1 import order_pb2

from tests.support.order import status_name
from tests.support.product import Refusal, refusal_of

T = TypeVar("T")

RETRYABLE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"}
"""The codes after which a client tries again."""

RETRY_TIMEOUT = 60.0
"""Seconds for which a client tries again."""

MOVED_ON = 100_000
"""How far the order numbers are moved on in a restored database, as docs/operations.md says."""


class Refused(Exception):
    """A call that was refused for good."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code} {refusal.reason}: {refusal.message}")
        self.refusal = refusal

    @property
    def is_retryable(self) -> bool:
        return self.refusal.code in RETRYABLE


@dataclass
class Attempt:
    """One order that a client wants, and the responses that it got. Its key is in the order's notes."""

    key: str
    items: dict[str, int]
    from_cart: bool = False
    """Whether it is bought through a cart. Otherwise, its key is an idempotency key."""
    id: str = ""
    number: str = ""
    status: str = ""
    """The last status that was acknowledged; empty if no order was."""
    refusal: str = ""
    """The reason why it was refused for good."""
    may_be: set[str] = field(default_factory=set)
    """The ids of the orders that the versions of its cart would become."""
    answers: set[tuple[str, str]] = field(default_factory=set)
    """Each id and number that a response had. More than one is an error."""
    time: float = 0.0
    """When it was acknowledged, by the event loop's clock."""
    seen: list[int] = field(default_factory=list)
    """The versions that its watcher saw, if it had one."""
    watched: bool = False


class Record:
    """What all clients know."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.problems: list[str] = []
        """What should never happen to a client."""
        self.told: Counter[str] = Counter()
        """The messages after which clients tried again, and how often."""
        self.restored = False
        """Whether a database was restored. Orders may then be missing, or have an earlier status."""
        self.dice = random.Random(7)
        self._news = asyncio.Event()

    async def insist(self, call: Callable[[], Awaitable[T]], retry_timeout: float = RETRY_TIMEOUT) -> T:
        """Calls again and again until there is an answer, or `retry_timeout` seconds are over."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + retry_timeout
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
            if refusal.code not in RETRYABLE or clock() >= deadline:
                raise Refused(refusal)
            self.told[refusal.message] += 1
            await asyncio.sleep(min(refusal.retry_after or 0.2, 0.5) * self.dice.uniform(0.5, 1))

    async def place(
        self, attempt: Attempt, create: Callable[[], Awaitable[order_pb2.Order]], retry_timeout: float
    ) -> order_pb2.Order:
        """Insists on an order. Some clients ask once more, as if the response was lost."""

        async def answered() -> order_pb2.Order:
            order = await create()
            attempt.answers.add((order.id, order.number))
            return order

        order = await self.insist(answered, retry_timeout)
        if not attempt.status:
            self._acknowledge(attempt, order)
        if self.dice.random() < 0.1:
            again = await self.insist(answered, retry_timeout)
            if self.restored and _sequence(order) < MOVED_ON <= _sequence(again):
                # It was lost with the restore in between, and is a new one: its client has seen that alone.
                attempt.answers = {(again.id, again.number)}
                self._acknowledge(attempt, again)
        return order

    def _acknowledge(self, attempt: Attempt, order: order_pb2.Order) -> None:
        attempt.id, attempt.number, attempt.status = order.id, order.number, status_name(order)
        attempt.time = asyncio.get_running_loop().time()
        self._news.set()

    @property
    def placed(self) -> int:
        """How many orders are placed."""
        return sum(bool(each.status) for each in self.attempts)

    async def acknowledged(self, number: int) -> None:
        """Waits until so many orders are placed."""
        async with asyncio.timeout(90):
            while self.placed < number:
                self._news.clear()
                await self._news.wait()


def _sequence(order: order_pb2.Order) -> int:
    return int(order.number.rpartition("-")[2])
