"""Spans of SQL statements: with their text and SQLSTATE, without a value or a text of the driver."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psycopg
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from runtime.credentials import ConnectionInfo
from runtime.telemetry.spans import span


def statement_span(name: str, query: str, connection: ConnectionInfo) -> AbstractContextManager[Span | None]:
    """Returns the span of a statement; nothing if the present span is not sampled, as in background jobs.

    Args:
        name: The statement's name.
        query: Its text. It has names of parameters, no values.
        connection: Where it runs.
    """
    if not trace.get_current_span().is_recording():
        return nullcontext()
    attributes = {
        "db.system.name": "postgresql",
        "db.namespace": connection.database,
        "db.query.summary": name,
        "db.query.text": query,
    }
    return _failing(span(name, SpanKind.CLIENT, attributes))


@contextmanager
def _failing(made: AbstractContextManager[Span]) -> Iterator[Span]:
    with made as current:
        try:
            yield current
        except Exception:
            current.set_status(StatusCode.ERROR)
            raise


def note_statement_error(current: Span | None, error: psycopg.Error) -> None:
    """Notes what the database has refused a statement with, whether it is run again or not."""
    if current is not None:
        current.set_attribute("error.type", error.sqlstate or type(error).__name__)
        if error.sqlstate:
            current.set_attribute("db.response.status_code", error.sqlstate)
