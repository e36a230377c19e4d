"""The log line about a stream, written when it ends."""

import logging
import time
from collections.abc import Sequence

from aiohttp import web

from runtime.limited_log import LimitedLines
from runtime.telemetry.calls import SERVER_FAULTS
from sse.streams.counts import EndReason

log = logging.getLogger("shop.streams")

WARNINGS = SERVER_FAULTS | {EndReason.UPSTREAM_LOST, EndReason.ERROR}
"""The results that are logged as warnings: the browser can do nothing about them."""

_log_ends = LimitedLines(log, logging.INFO)
_log_faults = LimitedLines(log, logging.WARNING)


class RequestIds:
    """The ids in the headers of a request, in the form in which `runtime.logs` reads them."""

    def __init__(self, request: web.Request) -> None:
        self._headers = request.headers

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """Returns the headers that have ids."""
        return [
            (name, value)
            for name in ("traceparent", "tracestate", "x-request-id")
            for value in self._headers.getall(name, [])
        ]


class StreamRecord:
    """What is logged of a request for a stream."""

    __slots__ = ("_start", "caller", "error", "events", "order_id", "result")

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.result: str = EndReason.CLIENT
        """What became of it: an outcome or an EndReason. A browser that goes away cancels its request."""
        self.order_id = ""
        self.caller = ""
        """What stands for the caller in a log; empty if that is not known."""
        self.events = 0
        """Events that were written."""
        self.error = ""
        """The message that the client got."""

    def write(self) -> None:
        """Writes the line."""
        fields: dict[str, object] = {
            "result": self.result,
            "ms": round((time.perf_counter() - self._start) * 1000, 2),
            "events": self.events,
        }
        fields |= {name: value for name in ("order_id", "caller", "error") if (value := getattr(self, name))}
        write = _log_faults if self.result in WARNINGS else _log_ends
        write(f"event stream: {self.result}", fields)
