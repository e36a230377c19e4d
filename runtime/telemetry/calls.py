"""What is measured and logged of each RPC that a process serves."""

import logging
import time
from collections.abc import Callable
from typing import Any, cast

import grpc

from runtime.access.caller import Caller
from runtime.limited_log import LINES_PER_SECOND, SUPPRESSED, LimitedLine
from runtime.telemetry.durations import call_durations
from runtime.telemetry.histogram import Distribution
from runtime.telemetry.metrics import Metrics

log = logging.getLogger("shop.rpc")

SERVER_FAULTS = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
"""The codes of errors that are logged as warnings: the client can do nothing about them."""

PROBES = "grpc.health."
"""How the methods begin whose calls are logged only if they fail: Envoy and Kubernetes call them every few seconds."""

TRACEBACKS_PER_SECOND = 1
"""Tracebacks of one method."""

DEADLINE_MARGIN = 0.05
"""Seconds before its deadline from which a call that is cancelled counts as one that took too long: who waits for it
has the same deadline, and may leave a moment earlier."""


Describe = Callable[[Caller], str]
"""Returns how a caller is called in a log. It names nobody."""


def _nobody(_: Caller) -> str:
    return ""


def cancellation_code(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Returns the code of a call that grpc has cancelled: its time was over, or its client left before."""
    # Without a deadline it is None, which its type leaves out.
    remaining = cast("float | None", context.time_remaining())
    return "CANCELLED" if remaining is None or remaining > DEADLINE_MARGIN else "DEADLINE_EXCEEDED"


class MethodCalls:
    """The calls of one method."""

    def __init__(self, calls: "Calls", method: str, *, streaming: bool, describe: Describe) -> None:
        self._calls = calls
        self._method = method
        self._streaming = streaming
        self._describe = describe
        self._outcomes: dict[str, tuple[Distribution | None, LimitedLine | None]] = {}
        """The durations and the log lines of calls, by code; None: there are none."""
        self._tracebacks = LimitedLine(
            log, logging.ERROR, f"{method} failed", TRACEBACKS_PER_SECOND, method=method, code="INTERNAL"
        )

    def started(self) -> float:
        """Notes that a call has started. Returns when, for `finished`."""
        self._calls.active[self._method] += 1
        return time.perf_counter()

    def finished(self, code: str, start: float, caller: Caller | None = None, error: str = "") -> None:
        """Measures and logs a call that has ended.

        Args:
            code: The name of its status code, as in `NOT_FOUND`.
            start: What `started` returned.
            caller: Who called, if that is known.
            error: The message that the client got; empty if the call succeeded.
        """
        seconds, line = self._measure(code, start)
        if line is not None and line.admit(start + seconds):
            line.write(self._fields(seconds, caller) | ({"error": error} if error else {}))

    def failed(self, error: Exception, start: float, caller: Caller | None = None) -> None:
        """Measures a call that failed because of a fault of the code, and logs the fault."""
        seconds, _ = self._measure("INTERNAL", start)
        if self._tracebacks.admit(start + seconds):
            self._tracebacks.write(self._fields(seconds, caller), error)

    def _line(self, code: str) -> LimitedLine | None:
        level = logging.WARNING if code in SERVER_FAULTS else logging.INFO
        rate = self._calls.successes_per_second if code == "OK" else LINES_PER_SECOND
        if code in ("OK", "CANCELLED") and self._method.startswith(PROBES):
            level = logging.DEBUG
        if not rate:
            return None
        return LimitedLine(log, level, f"{self._method} {code}", rate, method=self._method, code=code)

    def _fields(self, seconds: float, caller: Caller | None) -> dict[str, object]:
        fields: dict[str, object] = {"ms": round(seconds * 1000, 2)}
        if caller is not None and (name := self._describe(caller)):
            fields["caller"] = name
        return fields

    def _measure(self, code: str, start: float) -> tuple[float, LimitedLine | None]:
        """Returns the seconds that the call took, and the log line about such calls."""
        seconds = time.perf_counter() - start
        self._calls.active[self._method] -= 1
        try:
            durations, line = self._outcomes[code]
        except KeyError:
            # How long a stream lasts says nothing.
            durations = None if self._streaming else self._calls.durations.of(self._method, code)
            line = self._line(code)
            self._outcomes[code] = durations, line
        if durations is not None:
            durations.record(seconds)
        return seconds, line


class Calls:
    """The calls of all methods of a process."""

    def __init__(self, metrics: Metrics | None = None, successes_per_second: int = LINES_PER_SECOND) -> None:
        """Prepares the metrics.

        Args:
            metrics: Takes the measurements; None: there are none.
            successes_per_second: Log lines about calls of one method that succeed; 0: none.
        """
        self.active: dict[str, int] = {}
        """How many calls are being served, by method."""
        self.durations = call_durations(metrics, "rpc.server.call.duration", "Duration of the RPCs served.")
        self.successes_per_second = successes_per_second
        if metrics is None or not metrics.enabled:
            return
        metrics.gauge(
            "shop.rpc.server.active_calls",
            lambda: self.active,
            "RPCs that are being served, streams included.",
            unit="{call}",
            labels=["rpc.method"],
        )
        metrics.counter(
            "shop.log.suppressed",
            lambda: SUPPRESSED,
            "Log lines that were counted instead of written, because there were many of their kind.",
            unit="{line}",
            labels=["level"],
        )

    def of(self, method: str, *, streaming: bool, describe: Describe = _nobody) -> MethodCalls:
        """Returns what measures and logs the calls of a method.

        Args:
            method: Its full name, as in `/shop.order.v1.OrderService/GetOrder`.
            streaming: Whether it answers with a stream.
            describe: How its callers are called in the log.
        """
        name = method.removeprefix("/")
        self.active[name] = 0
        return MethodCalls(self, name, streaming=streaming, describe=describe)
