"""Spans without the texts of exceptions, which may be those of a customer or of the database."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

SYSTEM = {"rpc.system.name": "grpc"}

tracer = trace.get_tracer("shop")


def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str] | None = None,
    *,
    context: Context | None = None,
    links: Sequence[Link] = (),
) -> AbstractContextManager[Span]:
    """Returns a span that is the present one in a block.

    Args:
        name: Its name, of which there is a bounded number.
        kind: Its role.
        attributes: What is known of it.
        context: What it is a part of; by default the present span.
        links: The spans of other traces that it is about.
    """
    return tracer.start_as_current_span(
        name, context, kind, attributes, links, record_exception=False, set_status_on_exception=False
    )


def inner_span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Mapping[str, str] | None = None
) -> AbstractContextManager[Span | None]:
    """Returns a span within the present one, or nothing if that is not sampled."""
    return span(name, kind, attributes) if trace.get_current_span().is_recording() else nullcontext()


def fail(current: Span | None, error: str) -> None:
    """Marks a span as failed: with the kind of the error, never its text."""
    if current is not None:
        current.set_attribute("error.type", error)
        current.set_status(StatusCode.ERROR)


def client_span(method: str) -> AbstractContextManager[Span | None]:
    """Returns the span of an RPC that this process makes. `method` is its full name, as in `shop.order.v1.X/GetX`."""
    return inner_span(method, SpanKind.CLIENT, SYSTEM | {"rpc.method": method})


def end_client_span(current: Span | None, code: str) -> None:
    """Notes the status code of an RPC that this process has made, as in `NOT_FOUND`."""
    if current is not None:
        current.set_attribute("rpc.response.status_code", code)
        if code != "OK":
            fail(current, code)
