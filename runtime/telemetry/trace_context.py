"""The W3C trace context of calls (https://www.w3.org/TR/trace-context): what a caller sends, and what is sent on."""

import re
from collections.abc import Callable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.headers import header_values
from runtime.logs import CALL

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

Header = Callable[[str], Sequence[str]]
"""Returns all values of a header."""

_LENGTH = 55
"""The characters of a `traceparent`. Its last one has the flag `sampled` as its lowest bit."""

_EVEN = frozenset("02468ace")
_ANY = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[ -~]{1,512}")

_w3c = TraceContextTextMapPropagator()


def is_unsampled(traceparents: Sequence[str | bytes]) -> bool:
    """Returns whether the `traceparent` headers of a call say that its trace is not sampled.

    Almost every call gets here, so it looks at the flag alone. If the ids are malformed, there is no trace.
    """
    if len(traceparents) != 1:
        return False
    value = traceparents[0]
    return len(value) == _LENGTH and value[-1] in _EVEN


def context_of(traceparents: Sequence[str], tracestates: Sequence[str]) -> Context:
    """Returns the context that a caller has sent in these headers; an empty one if it has sent none that is valid."""
    headers: Mapping[str, list[str]] = {TRACEPARENT: list(traceparents), TRACESTATE: list(tracestates)}
    return _w3c.extract(headers, Context()) if len(traceparents) == 1 else Context()


def outgoing() -> tuple[tuple[str, str], ...]:
    """Returns the headers that make a call to another service a part of the present trace.

    Within a span they are its own. Within a call without one they are those of its caller, whose decision not to sample
    the trace thus counts for the other service, too.
    """
    if trace.get_current_span().get_span_context().is_valid:
        headers: dict[str, str] = {}
        _w3c.inject(headers)
        return tuple(headers.items())
    call = CALL.get(None)
    if call is None:
        return ()
    traceparents = header_values(call, TRACEPARENT)
    if len(traceparents) != 1 or not _ANY.fullmatch(traceparents[0]):
        return ()
    state = ",".join(header_values(call, TRACESTATE))
    sent = ((TRACEPARENT, traceparents[0]),)
    return (*sent, (TRACESTATE, state)) if _TRACESTATE.fullmatch(state) else sent


def present_traceparent() -> str | None:
    """Returns the present span as a `traceparent`, for what is done later because of it; None if it is not sampled."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def link_to(traceparent: str) -> Link | None:
    """Returns a link to a span that `present_traceparent` has returned; None if the text is none."""
    context = trace.get_current_span(context_of([traceparent], [])).get_span_context()
    return Link(context) if context.is_valid else None


def links_to(traceparents: Sequence[str | None]) -> list[Link]:
    """Returns links to the spans of those of the texts that are there, each once."""
    return [link for each in dict.fromkeys(traceparents) if each and (link := link_to(each))]
