"""What has become of streams, counted for metrics."""

import enum
from collections import Counter
from typing import Final

OPENED: Final = "opened"
OVER: Final = "over"
INTERNAL: Final = "INTERNAL"
OUTCOMES = (
    OPENED,
    OVER,
    "INVALID_ARGUMENT",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    INTERNAL,
)
"""What becomes of a request for a stream: it is opened, there is nothing more to send, or the code of the error."""


class EndReason(enum.StrEnum):
    """What ended a stream."""

    COMPLETED = enum.auto()
    """The order is finished."""
    CLIENT = enum.auto()
    """The browser has gone."""
    SLOW_READER = enum.auto()
    """The browser left its buffer full for too long."""
    REWOUND = enum.auto()
    """The order's history was rolled back."""
    UPSTREAM_LOST = enum.auto()
    """The order service was unavailable for too long."""
    SHUTDOWN = enum.auto()
    """This process stops."""
    ERROR = enum.auto()
    """A fault of the code."""


class StreamCounts:
    """Counts since the process started."""

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        """Requests for a stream, by outcome."""
        self.closed: Counter[str] = Counter(dict.fromkeys(EndReason, 0))
        """Streams that have ended, by reason."""
        self.events = 0
        """Events that were written to browsers."""
