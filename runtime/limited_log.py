"""Log lines that a flood would repeat too often: some of them are written, the others are counted."""

import asyncio
import logging
import time
from collections import Counter
from contextvars import Context

LINES_PER_SECOND = 10
"""Lines of one kind."""

BURST_SECONDS = 2
"""After a quiet time, as many lines are written at once as otherwise in these seconds."""

SUMMARY_INTERVAL = 1.0
"""Seconds after which a line tells how many were left out, if no other line of its kind did so before."""

SUPPRESSED: Counter[str] = Counter(
    {logging.getLevelName(level): 0 for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)}
)
"""How many lines this process left out, by level."""

_waiting: "set[LimitedLine]" = set()
"""The kinds of lines that still have to tell how many of them were left out."""


class LimitedLine:
    """One kind of line, such as those of one method's calls that succeed."""

    def __init__(
        self, log: logging.Logger, level: int, message: str, rate: float = LINES_PER_SECOND, **fields: str
    ) -> None:
        """Starts with a full allowance.

        Args:
            log: Where the lines go.
            level: Their level.
            message: Their message, without arguments.
            rate: How many lines a second are written if many come.
            fields: What all these lines have.
        """
        self._log = log
        self._level = level
        self._level_name = logging.getLevelName(level)
        self._message = message
        self._fields = fields
        self._interval = 1 / rate
        self._burst_time = BURST_SECONDS - self._interval
        # The "generic cell rate algorithm": the state of the bucket is one time, and a refusal costs one comparison.
        self._open_from = float("-inf")
        self._suppressed = 0

    def admit(self, now: float) -> bool:
        """Returns whether to write a line now; if not, counts it. There must be a running event loop.

        Args:
            now: The time by `time.perf_counter`.
        """
        if not self._log.isEnabledFor(self._level):
            return False
        if now < self._open_from:
            if not self._suppressed and self not in _waiting:
                _waiting.add(self)
                self._summarize_later()
            self._suppressed += 1
            SUPPRESSED[self._level_name] += 1
            return False
        self._take(now)
        return True

    def write(self, fields: dict[str, object], error: Exception | None = None) -> None:
        """Writes a line that was admitted.

        Args:
            fields: What this line has beside what all have.
            error: An error whose traceback is written.
        """
        extra: dict[str, object] = {**self._fields, **fields}
        if self._suppressed:
            extra["suppressed"] = self._suppressed
            self._suppressed = 0
        self._log.log(self._level, "%s", self._message, extra=extra, exc_info=error)

    def summarize(self) -> None:
        """Writes how many lines were left out since the last one, if any were."""
        _waiting.discard(self)
        if self._suppressed:
            extra = {**self._fields, "suppressed": self._suppressed}
            self._log.log(self._level, "%s: %d more", self._message, self._suppressed, extra=extra)
            self._suppressed = 0

    def _take(self, now: float) -> None:
        self._open_from = max(self._open_from, now - self._burst_time) + self._interval

    def _summarize_later(self) -> None:
        # In a context of its own: the line must not have the ids of the call that happens to run now.
        asyncio.get_running_loop().call_later(SUMMARY_INTERVAL, self._summarize_if_quiet, context=Context())

    def _summarize_if_quiet(self) -> None:
        """Writes the summary if the flood is over. Otherwise the next line tells it."""
        now = time.perf_counter()
        if self not in _waiting:
            return
        if self._suppressed and now < self._open_from:
            self._summarize_later()
            return
        if self._suppressed:
            self._take(now)
        self.summarize()


class LimitedLines:
    """Lines that are limited by message. There must be a bounded number of messages."""

    def __init__(self, log: logging.Logger, level: int, rate: float = LINES_PER_SECOND) -> None:
        """The arguments are those of `LimitedLine`."""
        self._log = log
        self._level = level
        self._rate = rate
        self._lines: dict[str, LimitedLine] = {}

    def __call__(self, message: str, fields: dict[str, object] | None = None, error: Exception | None = None) -> None:
        """Writes a line, or counts it.

        Args:
            message: The message: a text of which there are few, so without ids and numbers.
            fields: What else the line has.
            error: An error whose traceback is written.
        """
        line = self._lines.get(message)
        if line is None:
            line = self._lines[message] = LimitedLine(self._log, self._level, message, self._rate)
        if line.admit(time.perf_counter()):
            line.write(fields or {}, error)


def flush() -> None:
    """Tells what was left out last, as a process ends."""
    for line in list(_waiting):
        line.summarize()
