"""Sending spans and metrics to a collector that may be slow or gone.

OpenTelemetry's SDK sends from threads of its own, and drops what does not fit its queue, so a call waits for nothing.
Its exporters log every failure, though. Here a failure is logged once, and once that it is over.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from threading import Thread
from typing import Any, TypeVar

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 3.0
"""Seconds that sending the last spans and metrics may take when a process ends."""

T = TypeVar("T")

_REASONS: ContextVar[list[str]] = ContextVar("reasons")
"""What an exporter logs during an export."""


class _KeepReasons(logging.Filter):
    """Keeps what exporters log during an export. The rest goes to the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether to log a record."""
        reasons = _REASONS.get(None)
        if reasons is not None:
            reasons.append(record.getMessage())
        return reasons is None


_KEEP_REASONS = _KeepReasons()


def quiet_exporters() -> None:
    """Keeps the exporters of OpenTelemetry that are loaded from logging each failure."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith("opentelemetry.exporter."):
            logger.removeFilter(_KEEP_REASONS)
            # Before their own filter, which removes repetitions.
            logger.filters.insert(0, _KEEP_REASONS)
    # It warns of each span that does not fit the queue, on the path of a call.
    logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)


class Delivery:
    """Whether what is sent arrives."""

    def __init__(self, signal: str) -> None:
        """`signal` is what is sent, for the log."""
        self._signal = signal
        self._is_failing = False

    def run(self, send: Callable[[], T], success: T, failure: T) -> T:
        """Runs an export, and logs if its outcome differs from the one before.

        Args:
            send: The export. It may raise any error.
            success: What it returns if it succeeds.
            failure: What to return if it raises.
        """
        reasons: list[str] = []
        token = _REASONS.set(reasons)
        try:
            result = send()
        except Exception as error:
            reasons.append(type(error).__name__)
            result = failure
        finally:
            _REASONS.reset(token)
        if result == success:
            if self._is_failing:
                log.info("%s reach the collector again", self._signal)
        elif not self._is_failing:
            # The first is the cause, the last is the end of the retries.
            why = "; ".join(dict.fromkeys(reasons[:1] + reasons[-1:])) or "unknown reason"
            log.warning("%s do not reach the collector: %s", self._signal, why)
        self._is_failing = result != success
        return result


class SpanSender(SpanExporter):
    """Sends spans by an exporter of OpenTelemetry's."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._delivery = Delivery("traces")
        self._is_closed = False
        quiet_exporters()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends spans; drops them if that fails."""
        if self._is_closed:
            return SpanExportResult.FAILURE
        return self._delivery.run(
            lambda: self._exporter.export(spans), SpanExportResult.SUCCESS, SpanExportResult.FAILURE
        )

    def shutdown(self) -> None:
        """Ends what is being sent. Later spans are dropped."""
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()


class MetricSender(MetricExporter):
    """Sends metrics by an exporter of OpenTelemetry's."""

    def __init__(self, exporter: MetricExporter) -> None:
        # The reader looks for these two, which the exporter has read from OTEL_EXPORTER_OTLP_METRICS_….
        super().__init__(
            exporter._preferred_temporality,  # pyright: ignore[reportPrivateUsage]
            exporter._preferred_aggregation,  # pyright: ignore[reportPrivateUsage]
        )
        self._exporter = exporter
        self._delivery = Delivery("metrics")
        quiet_exporters()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Sends metrics; drops them if that fails."""
        return self._delivery.run(
            lambda: self._exporter.export(metrics_data, timeout_millis),  # pyright: ignore[reportUnknownMemberType]
            MetricExportResult.SUCCESS,
            MetricExportResult.FAILURE,
        )

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Does nothing: the exporters keep nothing back."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Ends what is being sent."""
        self._exporter.shutdown(timeout_millis)  # pyright: ignore[reportUnknownMemberType]


def run_for(timeout: float, *works: Callable[[], None]) -> bool:
    """Runs functions beside each other, for at most `timeout` seconds. Returns whether all of them have returned.

    Their threads do not keep the process from ending.
    """
    threads = [Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return not any(thread.is_alive() for thread in threads)
