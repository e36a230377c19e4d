"""Distributions, and what is exported of them."""

from collections.abc import Mapping, Sequence

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    MetricsData,
    ResourceMetrics,
)
from opentelemetry.sdk.resources import Resource

from runtime.telemetry.histogram import Deltas, Description, Histograms
from tests.support.metrics import measuring, read

BOUNDS = (0.1, 1.0)


@pytest.fixture
def histograms() -> Histograms:
    return Histograms("test")


def points(histograms: Histograms, deltas: Deltas | None = None) -> Mapping[tuple[str, ...], HistogramDataPoint]:
    """What is exported, by the values of the labels."""
    nothing = MetricsData([ResourceMetrics(Resource.get_empty(), [], "")])
    (resource,) = histograms.added_to(nothing, deltas).resource_metrics
    (scope,) = resource.scope_metrics
    found: dict[tuple[str, ...], HistogramDataPoint] = {}
    for metric in scope.metrics:
        assert isinstance(metric.data, Histogram)
        wanted = AggregationTemporality.DELTA if deltas else AggregationTemporality.CUMULATIVE
        assert metric.data.aggregation_temporality is wanted
        found |= {tuple(map(str, (each.attributes or {}).values())): each for each in metric.data.data_points}
    return found


@pytest.mark.parametrize(
    ("values", "counts"),
    [((0.05, 0.1), [2, 0, 0]), ((0.11, 1.0), [0, 2, 0]), ((1.01, 1e9), [0, 0, 2]), ((-1.0,), [1, 0, 0])],
)
def test_value_is_in_the_first_bucket_that_holds_it(
    histograms: Histograms, values: Sequence[float], counts: list[int]
) -> None:
    distribution = histograms.add(Description("waits", "Waits."), BOUNDS).of()
    for value in values:
        distribution.record(value)
    (point,) = points(histograms).values()
    assert point.bucket_counts == counts
    assert point.explicit_bounds == BOUNDS
    assert point.count == len(values)
    assert point.sum == pytest.approx(sum(values))


def test_labels_have_distributions_of_their_own(histograms: Histograms) -> None:
    histogram = histograms.add(Description("calls", "Calls.", labels=["method"], constant={"system": "grpc"}), BOUNDS)
    histogram.of("a").record(0.5)
    histogram.of("a").record(0.5)
    histogram.of("b").record(0.5)
    histogram.of("unused")
    assert {values: point.count for values, point in points(histograms).items()} == {("grpc", "a"): 2, ("grpc", "b"): 1}


def test_collector_that_wants_differences_gets_them(histograms: Histograms) -> None:
    deltas = Deltas()
    distribution = histograms.add(Description("waits", "Waits."), BOUNDS).of()
    distribution.record(0.5)
    (first,) = points(histograms, deltas).values()
    assert (first.count, first.sum, first.bucket_counts) == (1, 0.5, [0, 1, 0])
    distribution.record(2.0)
    distribution.record(0.5)
    (second,) = points(histograms, deltas).values()
    assert (second.count, second.sum, second.bucket_counts) == (2, 2.5, [0, 1, 1])
    assert second.start_time_unix_nano == first.time_unix_nano
    (third,) = points(histograms, deltas).values()
    assert (third.count, third.sum) == (0, 0)
    (all_of_them,) = points(histograms).values()
    assert all_of_them.count == 3, "another reader still gets the whole"


def test_collector_gets_the_metrics_of_the_sdk_as_well(histograms: Histograms) -> None:
    """The encoder of OTLP takes one entry of each scope."""
    sdk = InMemoryMetricReader()
    MeterProvider([sdk], shutdown_on_exit=False).get_meter("test").create_counter("orders").add(1)
    histograms.add(Description("waits", "Waits."), BOUNDS).of().record(0.5)
    collected = sdk.get_metrics_data()
    assert collected
    (resource,) = encode_metrics(histograms.added_to(collected)).resource_metrics
    assert sorted(metric.name for scope in resource.scope_metrics for metric in scope.metrics) == ["orders", "waits"]


def test_prometheus_gets_cumulative_buckets() -> None:
    metrics = measuring()
    metrics.gauge("other", lambda: 1, "Something.")
    histogram = metrics.histogram("call.duration", "Calls.", BOUNDS, labels=["rpc.method"])
    for seconds in (0.05, 0.5, 5):
        histogram.of("get").record(seconds)
    text = read(metrics)
    buckets = {le: text.value("call_duration_seconds_bucket", rpc_method="get", le=le) for le in ("0.1", "1.0", "+Inf")}
    assert buckets == {"0.1": 1, "1.0": 2, "+Inf": 3}
    assert text.value("call_duration_seconds_sum", rpc_method="get") == pytest.approx(5.55)
