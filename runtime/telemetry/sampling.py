"""Which traces are sent: what OTEL_TRACES_SAMPLER says, and what continues a trace that is sent."""

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes


class LinkBased(Sampler):
    """Samples a trace that begins with a link to a sampled one. Decides about all others by another sampler.

    The message that confirms an order is sent later, in a trace of its own. Who has the order's trace gets that one.
    """

    def __init__(self, inner: ParentBased) -> None:
        """`inner` decides about all other spans."""
        self._inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decides about a span that is about to start."""
        is_root = not get_current_span(parent_context).get_span_context().is_valid
        if is_root and any(each.context.trace_flags.sampled for each in links or ()):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Returns how the sampler describes itself."""
        return f"LinkBased{{{self._inner.get_description()}}}"  # type: ignore[no-untyped-call]  # has no types
