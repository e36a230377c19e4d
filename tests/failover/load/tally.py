"""What clients tried, and the responses that they got."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.failover.load.http import RequestFailed

RETRY_TIMEOUT = 60.0
"""Seconds for which a client tries again."""
FIRST_PAUSE, MAX_PAUSE = 0.2, 1.0
"""Seconds between two attempts of a client."""

CODES = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}
RETRYABLE = {"CONNECTION", "TIMEOUT", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
"""After these a client tries again. The first two are no responses."""

Send = Callable[[], Awaitable[tuple[int, Any]]]


class Refused(Exception):
    """A response that no retry would change."""

    def __init__(self, operation: str, code: str, response: Any) -> None:
        super().__init__(f"{operation}: {code} {response}")
        self.reason = next((each["reason"] for each in _details(response) if "reason" in each), "")


@dataclass
class Order:
    """One order that a client wants. Its key is in the order's notes."""

    key: str
    items: dict[str, int]
    from_cart: bool
    id: str = ""
    number: str = ""
    status: str = ""
    """The last status that was acknowledged; empty if none was."""
    answers: list[tuple[str, str]] = field(default_factory=list)
    """The id and the number of each response."""


@dataclass
class Cart:
    """A cart, and what was acknowledged to be put into it. That stays here when it is ordered."""

    id: str
    put_in: dict[str, int] = field(default_factory=dict)


class Tally:
    """What happened since the last report."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.carts: list[Cart] = []
        self.acknowledged: list[float] = []
        """When each order was acknowledged, in seconds since the epoch."""
        self.calls: Counter[str] = Counter()
        self.errors: dict[str, Counter[str]] = {}
        """How many responses of each code each operation had."""
        self.messages: Counter[str] = Counter()
        self.problems: list[str] = []
        """What should never happen to a client."""
        self.first_errors: dict[str, float] = {}

    async def insist(self, operation: str, send: Send) -> Any:
        """Sends a request until it succeeds. Returns the JSON of the response.

        Raises:
            Refused: If a retry would change nothing, or after RETRY_TIMEOUT seconds.
        """
        deadline = time.monotonic() + RETRY_TIMEOUT
        pause = FIRST_PAUSE
        while True:
            self.calls[operation] += 1
            response: Any = None
            try:
                status, response = await send()
                if status == 200:
                    return response
                code = CODES.get((response or {}).get("code", 2), "UNKNOWN")
            except RequestFailed as failed:
                code = str(failed)
            self.errors.setdefault(operation, Counter())[code] += 1
            if response:
                self.messages[f"{code}: {response.get('message')}"] += 1
            if code not in RETRYABLE or time.monotonic() > deadline:
                raise Refused(operation, code, response)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, MAX_PAUSE)

    def longest_gap(self, began: float, ended: float) -> tuple[float, float]:
        """Returns when the longest time without an acknowledged order began, and when it ended."""
        times = sorted([began, *self.acknowledged, max([ended, *self.acknowledged])])
        return max(pairwise(times), key=lambda gap: gap[1] - gap[0])


def _details(response: Any) -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = (response or {}).get("details", [])
    return details
