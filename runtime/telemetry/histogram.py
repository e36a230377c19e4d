"""Distributions on the path of a call: a record costs a quarter of a microsecond, and the SDK's twenty under load.

The SDK exports them with its own metrics, as histograms with explicit buckets.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.util.instrumentation import InstrumentationScope


class Distribution:
    """How many values fell between two bounds, for one set of label values."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper bounds of the buckets, in ascending order."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def record(self, value: float) -> None:
        """Counts a value, in the unit of the metric."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> tuple[Sequence[int], float]:
        """Returns the counts of the buckets, of which the last has no upper bound, and the sum of all values."""
        # A copy in one step: the process goes on recording, and this runs in another thread.
        return self._counts.copy(), self._total


@dataclass(frozen=True)
class Description:
    """What a histogram of durations in seconds is about."""

    name: str
    text: str
    labels: Sequence[str] = ()
    constant: Mapping[str, str] = field(default_factory=dict[str, str])
    """Labels whose values are always the same."""


class Histogram:
    """The distributions of one metric, by the values of its labels. There must be a bounded number of values."""

    def __init__(self, description: Description, bounds: Sequence[float]) -> None:
        """`bounds` are the upper bounds of the buckets, in ascending order."""
        self.description = description
        self.bounds = bounds
        self._distributions: dict[tuple[str, ...], Distribution] = {}

    def of(self, *values: str) -> Distribution:
        """Returns the distribution with these values of the labels. Keep it: `record` is cheaper than this."""
        try:
            return self._distributions[values]
        except KeyError:
            return self._distributions.setdefault(values, Distribution(self.bounds))

    def points(self, start_time: int, now: int) -> list[HistogramDataPoint]:
        """Returns what the SDK exports: one point for each distribution that has a value.

        Args:
            start_time: Nanoseconds since 1970 when counting began.
            now: Nanoseconds since 1970.
        """
        described = self.description
        points: list[HistogramDataPoint] = []
        for values, distribution in self._distributions.copy().items():
            counts, total = distribution.read()
            if not (count := sum(counts)):
                continue
            attributes = {**described.constant, **dict(zip(described.labels, values, strict=True))}
            # Of a process's whole life, the extremes say little: there are none, which the type leaves out.
            none = cast("float", None)
            points.append(
                HistogramDataPoint(attributes, start_time, now, count, total, counts, self.bounds, none, none)
            )
        return points


class Deltas:
    """Turns histograms into what was added since the last export, for collectors that want that."""

    def __init__(self) -> None:
        """The first export has everything since the start."""
        self._last: dict[tuple[str, frozenset[tuple[str, Any]]], HistogramDataPoint] = {}

    def of(self, name: str, points: Sequence[HistogramDataPoint]) -> HistogramData:
        """Returns the difference to the points of the metric of this name that this got last."""
        return HistogramData([self._difference(name, each) for each in points], AggregationTemporality.DELTA)

    def _difference(self, name: str, point: HistogramDataPoint) -> HistogramDataPoint:
        key = (name, frozenset((point.attributes or {}).items()))
        last, self._last[key] = self._last.get(key), point
        if last is None:
            return point
        counts = [new - old for new, old in zip(point.bucket_counts, last.bucket_counts, strict=True)]
        return replace(
            point,
            start_time_unix_nano=last.time_unix_nano,
            count=point.count - last.count,
            sum=point.sum - last.sum,
            bucket_counts=counts,
        )


class Histograms:
    """All histograms of a process."""

    def __init__(self, scope: str) -> None:
        """There are none at first. `scope` is the name of their instrumentation scope."""
        self._scope = InstrumentationScope(scope)
        self._all: list[Histogram] = []
        self._start_time = time.time_ns()

    def add(self, description: Description, bounds: Sequence[float]) -> Histogram:
        """Adds one. `bounds` are the upper bounds of the buckets, in ascending order."""
        histogram = Histogram(description, bounds)
        self._all.append(histogram)
        return histogram

    def added_to(self, data: MetricsData, deltas: Deltas | None = None) -> MetricsData:
        """Returns what the SDK has collected, and the histograms.

        Args:
            data: The metrics of the SDK.
            deltas: What the same collector has got before, if it wants differences.
        """
        now = time.time_ns()
        metrics: list[Metric] = []
        for each in self._all:
            if points := each.points(self._start_time, now):
                about = each.description
                found = (
                    deltas.of(about.name, points)
                    if deltas
                    else HistogramData(points, AggregationTemporality.CUMULATIVE)
                )
                metrics.append(Metric(about.name, about.text, "s", found))
        resource = data.resource_metrics[0]
        scopes = {each.scope.name: each for each in resource.scope_metrics}
        # The exporters keep only one of two entries with the same scope.
        own = scopes.get(self._scope.name) or ScopeMetrics(self._scope, [], schema_url="")
        scopes[self._scope.name] = replace(own, metrics=[*own.metrics, *metrics])
        return replace(data, resource_metrics=[replace(resource, scope_metrics=list(scopes.values()))])
