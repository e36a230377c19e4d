"""Structured logs on standard output: JSON, or text on a terminal. A line has the ids of its trace and request."""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


CALL: ContextVar[Any] = ContextVar("call")
"""The context of the call that is being served. Its `invocation_metadata` is read only if a line is logged."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-.*")
_REQUEST_ID = re.compile(r"[!-~]{1,100}")


def _ids() -> dict[str, str]:
    """Returns the ids of the trace, the span and the request.

    Trace and span are those of the caller if this process makes no spans. The request id is the edge's.
    """
    ids: dict[str, str] = {}
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        ids["trace_id"] = trace.format_trace_id(context.trace_id)
        ids["span_id"] = trace.format_span_id(context.span_id)
    call = CALL.get(None)
    for key, value in (call.invocation_metadata() or ()) if call is not None else ():
        if key == "traceparent" and not context.is_valid and (match := _TRACEPARENT.fullmatch(str(value))):
            ids["trace_id"], ids["span_id"] = match.groups()
        elif key == "x-request-id" and _REQUEST_ID.fullmatch(str(value)):
            ids["request_id"] = str(value)
    return ids


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Returns what was passed as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, for programs."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as JSON."""
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


def _printable(text: str) -> str:
    """Returns a text with its control characters escaped: one from a client must not forge a line on a terminal."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class TextFormatter(logging.Formatter):
    """Formats a record as one line of text, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as text."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        extra = "".join(f" {key}={value}" for key, value in (_fields(record) | _ids()).items())
        line = _printable(f"{time} {record.levelname:7} {record.name}: {record.getMessage()}{extra}")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Throttle:
    """Limits how often something is logged: `if throttle(): log.warning(…)`."""

    def __init__(self, interval: float) -> None:
        """`interval` is the shortest time between two logs, in seconds."""
        self._interval = interval
        self._next_time = 0.0

    def __call__(self) -> bool:
        """Returns whether to log now."""
        now = time.monotonic()
        if now < self._next_time:
            return False
        self._next_time = now + self._interval
        return True


class LogOnce:
    """Logs a message when it differs from the one before: for a state that is checked again and again."""

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


def _is_not_header_warning(record: logging.LogRecord) -> bool:
    """Returns whether to keep a record of grpc: all but those about a header that is not UTF-8.

    They quote the header, which may be a token. The ids in such a record's line would make another record, and so on.
    """
    return not str(record.msg).startswith("Invalid encoding")


def setup(service: str, levels: Mapping[str, str], style: str = "") -> None:
    """Sends all logs of this process to standard output.

    Args:
        service: The name of the process, which each line has.
        levels: The lowest level that is logged, as in `INFO`, by the name of a logger. The empty name stands for all
            others.
        style: `json` or `text`; by default text on a terminal, and JSON elsewhere.
    """
    # No line shows these, and collecting them is a third of the cost of a line (logging HOWTO, Optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False
    logging._srcfile = None  # pyright: ignore[reportPrivateUsage]  # the HOWTO names it
    handler = logging.StreamHandler(sys.stdout)
    style = style or ("text" if sys.stdout.isatty() else "json")
    handler.setFormatter(JsonFormatter(service) if style == "json" else TextFormatter())
    logging.basicConfig(level=levels[""], handlers=[handler], force=True)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_header_warning)
    # The pool logs every failed attempt to connect, with the driver's message. `Server.watch` logs an outage once.
    for name, level in {"psycopg.pool": "ERROR", **levels}.items():
        if name:
            logging.getLogger(name).setLevel(level)
