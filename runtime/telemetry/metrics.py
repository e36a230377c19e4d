"""Metrics, by OpenTelemetry's SDK: as text for Prometheus, and over OTLP.

What happens often is counted in plain numbers by the part that does it. They are read when metrics are collected, so
counting costs the path of a call next to nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from opentelemetry.metrics import CallbackOptions, NoOpMeter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.export import CLOSE_TIMEOUT, MetricSender
from runtime.telemetry.histogram import Description, Histogram, Histograms
from runtime.telemetry.readers import PeriodicReader, PrometheusReader

METER = "shop"
"""The instrumentation scope of all metrics."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""The upper bounds of the buckets of a duration, in seconds."""

Number = int | float
Reading = Number | None | Mapping[str, Number] | Mapping[tuple[str, ...], Number]
"""The present value of a metric, or one for each of its label values. None: there is no value now."""
Read = Callable[[], Reading]
"""Returns the present value. It is called in another thread, so it must only look at what is there."""


class Metrics:
    """The metrics of one process."""

    def __init__(self, config: TelemetryConfig, resource: Resource) -> None:
        """Prepares the readers that the configuration asks for. Without any, measuring does nothing."""
        self.registry = CollectorRegistry()
        """What Prometheus gets to see."""
        self._histograms = Histograms(METER)
        readers: list[MetricReader] = []
        if config.metrics_port:
            readers.append(PrometheusReader(self.registry, self._histograms))
        if config.metrics_endpoint:
            readers.append(PeriodicReader(MetricSender(_exporter(config)), self._histograms))
        self.enabled = bool(readers)
        """Whether anything is measured."""
        self._provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False) if readers else None
        self._meter = self._provider.get_meter(METER) if self._provider else NoOpMeter(METER)

    def counter(self, name: str, read: Read, description: str, *, unit: str = "", labels: Sequence[str] = ()) -> None:
        """Adds a number that only grows, such as how many orders were placed.

        Args:
            name: The metric's name, as in `shop.orders.transitions`.
            read: Returns the count since the process started.
            description: What it counts.
            unit: The unit by UCUM, as in `s`, or what is counted, as in `{order}`.
            labels: The names of the labels, whose values `read` returns. There must be a bounded number of values.
        """
        self._meter.create_observable_counter(name, [_callback(read, labels)], unit, description)

    def gauge(self, name: str, read: Read, description: str, *, unit: str = "", labels: Sequence[str] = ()) -> None:
        """Adds a number that grows and shrinks, such as how many calls wait. The arguments are those of `counter`."""
        self._meter.create_observable_gauge(name, [_callback(read, labels)], unit, description)

    def histogram(
        self,
        name: str,
        description: str,
        bounds: Sequence[float],
        *,
        labels: Sequence[str] = (),
        constant: Mapping[str, str] | None = None,
    ) -> Histogram:
        """Adds a distribution of durations in seconds.

        Args:
            name: The metric's name.
            description: What is measured.
            bounds: The upper bounds of the buckets.
            labels: The names of the labels. There must be a bounded number of values.
            constant: More labels, with the values that they always have.
        """
        return self._histograms.add(Description(name, description, labels, constant or {}), bounds)

    def close(self) -> None:
        """Sends the last metrics, for at most CLOSE_TIMEOUT seconds."""
        if self._provider is not None:
            self._provider.shutdown(timeout_millis=CLOSE_TIMEOUT * 1000)


def _callback(read: Read, labels: Sequence[str]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> list[Observation]:
        reading = read()
        if reading is None:
            return []
        if not isinstance(reading, Mapping):
            return [Observation(reading)]
        observations: list[Observation] = []
        # A copy in one step: the process goes on counting meanwhile.
        for key, value in dict(reading).items():
            values = (key,) if isinstance(key, str) else key
            observations.append(Observation(value, dict(zip(labels, values, strict=True))))
        return observations

    return observe


def _exporter(config: TelemetryConfig) -> MetricExporter:
    # Both read OTEL_EXPORTER_OTLP_* by themselves. Imported here, since most processes send nothing.
    if config.metrics_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter

    return HttpMetricExporter()
