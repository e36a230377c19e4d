"""Spans of requests for a stream: short ones, with links to the calls whose events the stream begins with."""

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from runtime.telemetry.spans import fail, tracer
from runtime.telemetry.trace_context import links_to
from runtime.telemetry.traces import Traces
from sse.streams.wire import StatusEvent

OPENING = web.RequestKey("opening", Span)
"""The span of a request."""

CLIENT_GONE = 499
"""The status of a request whose client left before it had a response, as servers log it."""


def traced(traces: Traces) -> Middleware:
    """Returns what makes a span of each request for a stream whose trace is sampled."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        parent = traces.continued(lambda name: request.headers.getall(name, []))
        if parent is None or not request.path.startswith("/api/"):
            return await handler(request)
        attributes = {"http.request.method": request.method}
        span = request[OPENING] = tracer.start_span("stream.open", parent, SpanKind.SERVER, attributes)
        status = CLIENT_GONE
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                response = await handler(request)
                status = response.status
            finally:
                _end(span, status)
        return response

    return middleware


def end_opening(request: web.Request, events: Sequence[StatusEvent]) -> None:
    """Ends the span of a request: the stream is open, and begins with these events."""
    span = request.get(OPENING)
    if span is not None:
        for link in links_to([event.traceparent for event in events]):
            span.add_link(link.context)
        _end(span, web.HTTPOk.status_code)


def _end(span: Span, status: int) -> None:
    """Ends a span, if that was not done before."""
    if span.is_recording():
        span.set_attribute("http.response.status_code", status)
        if status >= web.HTTPInternalServerError.status_code:
            fail(span, str(status))
        span.end()
