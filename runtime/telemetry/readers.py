"""What collects the metrics of the SDK for Prometheus and for a collector: with the histograms of this package."""

from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import Histogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricsData,
    PeriodicExportingMetricReader,
)
from prometheus_client import CollectorRegistry

from runtime.telemetry.histogram import Deltas, Histograms


class PrometheusReader(PrometheusMetricReader):
    """Collects when Prometheus asks."""

    def __init__(self, registry: CollectorRegistry, histograms: Histograms) -> None:
        """`registry` is what Prometheus gets to see."""
        super().__init__(scope_info_enabled=False, registry=registry)
        self._histograms = histograms

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._histograms.added_to(metrics_data), timeout_millis, **kwargs)  # pyright: ignore[reportUnknownMemberType]


class PeriodicReader(PeriodicExportingMetricReader):
    """Sends the metrics every OTEL_METRIC_EXPORT_INTERVAL milliseconds."""

    def __init__(self, exporter: MetricExporter, histograms: Histograms) -> None:
        # Before the thread starts, which collects.
        self._histograms = histograms
        preferred = exporter._preferred_temporality or {}  # pyright: ignore[reportPrivateUsage]  # the SDK's way, too
        self._deltas = Deltas() if preferred.get(Histogram) is AggregationTemporality.DELTA else None
        super().__init__(exporter)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._histograms.added_to(metrics_data, self._deltas), timeout_millis, **kwargs)  # pyright: ignore[reportUnknownMemberType]
