"""What is read of a caller's trace context, and what is sent on."""

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import get_current_span

from runtime.logs import CALL
from runtime.telemetry.sampling import LinkBased
from runtime.telemetry.trace_context import (
    context_of,
    is_unsampled,
    link_to,
    links_to,
    outgoing,
    present_traceparent,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = (f"00-{TRACE}-{SPAN}-{flags}" for flags in ("01", "00"))


class Call:
    """The context of an RPC with this metadata."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self._metadata


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Iterator[None]:
    token = CALL.set(Call(*request.param))
    yield
    CALL.reset(token)


@pytest.mark.parametrize(
    ("headers", "unsampled"),
    [
        ([UNSAMPLED], True),
        ([UNSAMPLED[:-1] + "2"], True),
        ([SAMPLED], False),
        ([SAMPLED[:-1] + "3"], False),
        ([], False),
        ([UNSAMPLED, UNSAMPLED], False),
        (["00-xyz"], False),
        ([UNSAMPLED + "0"], False),
        ([b"\xff" * 55], False),
    ],
)
def test_flag_says_whether_a_trace_is_sampled(headers: list[str | bytes], unsampled: bool) -> None:
    assert is_unsampled(headers) is unsampled


def test_two_contexts_of_one_call_are_none() -> None:
    assert not get_current_span(context_of([SAMPLED, SAMPLED], [])).get_span_context().is_valid
    assert get_current_span(context_of([SAMPLED], ["a=1"])).get_span_context().trace_state.get("a") == "1"


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        ([("traceparent", UNSAMPLED)], (("traceparent", UNSAMPLED),)),
        (
            [("traceparent", UNSAMPLED), ("tracestate", "a=1"), ("tracestate", "b=2")],
            (("traceparent", UNSAMPLED), ("tracestate", "a=1,b=2")),
        ),
        ([("traceparent", UNSAMPLED), ("tracestate", b"a=\xff")], (("traceparent", UNSAMPLED),)),
        ([("traceparent", "malformed")], ()),
        ([("traceparent", UNSAMPLED), ("traceparent", UNSAMPLED)], ()),
        ([("tracestate", "a=1")], ()),
    ],
    indirect=["call"],
)
@pytest.mark.usefixtures("call")
def test_callers_context_is_sent_on(sent: object) -> None:
    assert outgoing() == sent


@pytest.mark.parametrize("call", [[("traceparent", UNSAMPLED)]], indirect=True)
@pytest.mark.usefixtures("call")
def test_own_span_is_sent_instead() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("work", context_of([SAMPLED], ["a=1"])) as span:
        own = f"00-{TRACE}-{span.get_span_context().span_id:016x}-01"
        assert outgoing() == (("traceparent", own), ("tracestate", "a=1"))
        assert present_traceparent() == own


def test_background_work_sends_no_context() -> None:
    assert outgoing() == ()
    assert present_traceparent() is None


def test_unsampled_span_is_not_kept_for_later() -> None:
    tracer = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("work"):
        assert present_traceparent() is None
        assert is_unsampled([outgoing()[0][1]])


def test_links_are_made_of_what_was_kept() -> None:
    link = link_to(SAMPLED)
    assert link is not None
    assert f"{link.context.trace_id:032x}" == TRACE
    assert link.context.trace_flags.sampled
    assert link_to("malformed") is None
    assert len(links_to([SAMPLED, None, SAMPLED, "malformed"])) == 1


def test_trace_linked_to_a_sampled_one_is_sampled() -> None:
    tracer = TracerProvider(LinkBased(ParentBased(ALWAYS_OFF)), shutdown_on_exit=False).get_tracer("test")
    assert tracer.start_span("linked", Context(), links=links_to([SAMPLED])).is_recording()
    assert not tracer.start_span("linked", Context(), links=links_to([UNSAMPLED])).is_recording()
    assert not tracer.start_span("alone", Context()).is_recording()
    # Within a trace, its own decision counts.
    assert not tracer.start_span("inside", context_of([UNSAMPLED], []), links=links_to([SAMPLED])).is_recording()


def test_callers_decision_counts_more_than_the_share() -> None:
    for root in (ALWAYS_OFF, ALWAYS_ON):
        tracer = TracerProvider(LinkBased(ParentBased(root)), shutdown_on_exit=False).get_tracer("test")
        assert tracer.start_span("inside", context_of([SAMPLED], [])).is_recording()
        assert not tracer.start_span("inside", context_of([UNSAMPLED], [])).is_recording()
