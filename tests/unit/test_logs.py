"""A log line is one JSON object, with the trace that it belongs to."""

import json
import logging

from opentelemetry.sdk.trace import TracerProvider

from runtime.logs import JsonFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "shop", "levelname": "INFO", "msg": message, **extra})


def test_a_line_has_service_message_and_extra_fields() -> None:
    line = json.loads(JsonFormatter("order").format(record("order placed", order_id="1")))
    assert (line["service"], line["message"], line["order_id"]) == ("order", "order placed", "1")
    assert "trace_id" not in line


def test_a_line_break_in_a_message_does_not_break_the_line() -> None:
    assert "\n" not in JsonFormatter("order").format(record("one\ntwo"))


def test_a_line_within_a_span_has_its_ids() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        line = json.loads(JsonFormatter("order").format(record("hello")))
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"
