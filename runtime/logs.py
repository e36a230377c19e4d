"""Structured logs on standard output: one JSON object a line, with the trace that a line belongs to."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


CALL: ContextVar[Any] = ContextVar("call")
"""The context of the RPC that is being served: its metadata are looked at only where a line is logged."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-.*")
_REQUEST_ID = re.compile(r"[!-~]{1,100}")


def _ids() -> dict[str, str]:
    """What a line belongs to: the span where spans are made, else the caller's; and the edge's request id."""
    found: dict[str, str] = {}
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        found["trace_id"] = trace.format_trace_id(context.trace_id)
        found["span_id"] = trace.format_span_id(context.span_id)
    call = CALL.get(None)
    for key, value in (call.invocation_metadata() or ()) if call is not None else ():
        if key == "traceparent" and not context.is_valid and (match := _TRACEPARENT.fullmatch(str(value))):
            found["trace_id"], found["span_id"] = match.groups()
        elif key == "x-request-id" and _REQUEST_ID.fullmatch(str(value)):
            found["request_id"] = str(value)
    return found


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What a call passed in `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        extra = "".join(f" {key}={value}" for key, value in (_fields(record) | _ids()).items())
        line = f"{time} {record.levelname:7} {record.name}: {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class LogOnce:
    """Logs a message when it differs from the one before: for a state that is looked at again and again."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level
        self._last_message = ""

    def __call__(self, message: str) -> bool:
        """Returns whether it was logged."""
        if message == self._last_message:
            return False
        self._last_message = message
        self._logger.log(self._level, "%s", message)
        return True

    def reset(self) -> bool:
        """Forgets the last message, so that it will be logged again. Returns whether there was one."""
        had_message = bool(self._last_message)
        self._last_message = ""
        return had_message


def setup(service: str, level: str, style: str) -> None:
    # No line says them, and to find them out is a third of its cost (Python's logging HOWTO, Optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False
    logging._srcfile = None
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(service) if style == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # The pool warns of each attempt to reconnect with the driver's message; Database says it once, without it.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
