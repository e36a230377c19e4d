"""Which calls get a span."""

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import get_current_span

from runtime.config import Env
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.traces import Traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


def header(name: str) -> Sequence[str]:
    """The headers of a caller that does not sample its trace."""
    return [UNSAMPLED] if name == "traceparent" else []


def traces(endpoint: str = "http://127.0.0.1:9") -> Traces:
    config = TelemetryConfig.from_env(Env({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRICS_EXPORTER": "none"}))
    return Traces(config, Resource.create())


@pytest.mark.parametrize("sampler", ["", "parentbased_always_on", "parentbased_traceidratio"])
def test_unsampled_call_bypasses_the_instrumentation(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "1")
    made = traces()
    assert made.continued(header) is None
    root = made.continued(lambda _: [])
    assert root is not None, "a call without a context is for the sampler to decide"
    assert not get_current_span(root).get_span_context().is_valid
    made.close()


def test_sampler_that_asks_no_parent_decides_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    made = traces()
    context = made.continued(header)
    assert context is not None
    assert f"{get_current_span(context).get_span_context().trace_id:032x}" == TRACE
    made.close()


def test_without_an_endpoint_no_call_has_a_span() -> None:
    made = traces("")
    assert not made.enabled
    assert made.continued(lambda _: []) is None
