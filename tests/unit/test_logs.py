"""A log line is one JSON object, with the ids of its trace and request."""

import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider

from runtime.logs import CALL, JsonFormatter, LogOnce, TextFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "shop", "levelname": "INFO", "msg": message, **extra})


def test_line_has_service_message_and_extra_fields() -> None:
    line = json.loads(JsonFormatter("order").format(record("order placed", order_id="1")))
    assert (line["service"], line["message"], line["order_id"]) == ("order", "order placed", "1")
    assert "trace_id" not in line


def test_line_break_in_message_is_escaped() -> None:
    assert "\n" not in JsonFormatter("order").format(record("one\ntwo"))


def test_control_characters_do_not_reach_a_terminal() -> None:
    line = TextFormatter().format(record("one\ntwo", error="three\x1b[2Jfour", city="Zoë"))
    assert line.isprintable()
    assert "one\\ntwo error=three\\x1b[2Jfour" in line


def test_line_within_a_span_has_its_ids() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        line = json.loads(JsonFormatter("order").format(record("hello")))
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


class Call:
    """The context of an RPC, as far as logs use it."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def test_line_of_a_call_has_its_callers_ids() -> None:
    """Even if this process makes no spans."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    token = CALL.set(Call(("traceparent", f"00-{trace}-{span}-01"), ("x-request-id", "r-1")))
    try:
        line = json.loads(JsonFormatter("order").format(record("order placed")))
    finally:
        CALL.reset(token)
    assert (line["trace_id"], line["span_id"], line["request_id"]) == (trace, span, "r-1")


def test_malformed_ids_are_left_out() -> None:
    token = CALL.set(Call(("traceparent", "00-xyz-1-01"), ("x-request-id", "a\nb")))
    try:
        line = json.loads(JsonFormatter("order").format(record("order placed")))
    finally:
        CALL.reset(token)
    assert not {"trace_id", "span_id", "request_id"} & line.keys()


def test_log_once_logs_a_message_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    log_once = LogOnce(logging.getLogger("test"), logging.WARNING)
    assert [log_once(message) for message in ("a", "a", "b", "a")] == [True, False, True, True]
    assert log_once.reset()
    assert not log_once.reset()
    assert log_once("a")
    assert [record.getMessage() for record in caplog.records] == ["a", "b", "a", "a"]
