"""The table: a row for each case, which is what clients saw and what the databases have afterwards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.streams import compare
from tests.faults.attempts import Attempt
from tests.support.invariants_cart import Pieces

MAX_WITHOUT_WRITES = 15.0
"""Seconds for which no order may be acknowledged."""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    case: str
    attempted: int
    """Orders that clients tried to place, each with its own key or cart."""
    acknowledged: int
    """Orders whose clients got a response that they are placed. All clients retry."""
    lost: int
    """Acknowledged orders that do not exist or have an earlier status than was acknowledged, pieces that were put into
    carts and are neither there nor in an order, and pieces of stock that are nowhere."""
    doubled: int
    """Second orders of one key, keys with different responses, pieces that are in a cart and in an order, and orders
    without stock."""
    streams: int
    """Event streams that were open at the end."""
    events: int
    """Events that the streams had to deliver, since they began."""
    missed: int
    """Events that a stream has not delivered, or not in their order, and streams that ended for good too early."""
    repeated: int
    """Events that a stream has delivered more than once."""
    seconds_without_writes: float
    """The longest time between two acknowledged orders."""
    chosen_s: float | None
    """Seconds of that until the operator chose a new primary, or the kubelet started the old one again."""
    promoted_s: float | None
    """Seconds after that until this primary was promoted, or its PostgreSQL started."""
    standby_s: float | None
    """Seconds after that until a standby was connected to it. No commit is acknowledged before that."""
    client_s: float | None
    """Seconds after that until an order was acknowledged."""
    slowest_event_s: float
    """The longest time from the acknowledgement of a status to its arrival at the order's stream."""
    errors: Mapping[str, Mapping[str, int]]
    """How many responses other than success each operation had, by their code. A client retries after each."""

    def check(self) -> None:
        assert (self.lost, self.doubled, self.missed, self.repeated) == (0, 0, 0, 0), self
        assert self.attempted == self.acknowledged, self
        assert self.seconds_without_writes <= MAX_WITHOUT_WRITES, self


@dataclass
class Basket:
    """A cart, and what was acknowledged to be put into it."""

    id: str
    put_in: Pieces


@dataclass
class Evidence:
    """What clients know, for tests.faults.check."""

    attempts: list[Attempt] = field(default_factory=list)
    baskets: list[Basket] = field(default_factory=list)

    def add(self, report: Mapping[str, Any]) -> "Evidence":
        """Adds what the load reports. Returns what is new."""
        new = Evidence(
            [_attempt(each) for each in report["orders"]],
            [Basket(each["id"], Counter(each["put_in"])) for each in report["carts"]],
        )
        self.attempts += new.attempts
        self.baskets += new.baskets
        for each in self.attempts:
            each.status = report["statuses"].get(each.id, each.status)
        return new


class Seen:
    """What the streams have delivered so far, and what of it was wrong."""

    def __init__(self) -> None:
        self._missed = self._repeated = 0
        self._ended: dict[str, list[int]] = {}

    def count(self, seen: Mapping[str, list[int]], logs: Mapping[str, list[int]]) -> tuple[int, int]:
        """Returns how many events were newly missed and repeated, by what streams saw and the event logs."""
        self._ended |= seen
        missed, repeated = compare(self._ended, {order_id: logs.get(order_id, []) for order_id in self._ended})
        new = missed - self._missed, repeated - self._repeated
        self._missed, self._repeated = missed, repeated
        return new


def _attempt(order: Mapping[str, Any]) -> Attempt:
    names = ("key", "items", "from_cart", "id", "number", "status")
    answers: Sequence[tuple[str, str]] = [(order_id, number) for order_id, number in order["answers"]]
    return Attempt(**{name: order[name] for name in names}, answers=set(answers))
