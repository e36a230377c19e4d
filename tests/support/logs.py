"""What a logger writes, as a collector of logs reads it."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtime import limited_log
from runtime.logs import JsonFormatter


class WrittenLog:
    """The lines of one logger."""

    def __init__(self) -> None:
        self.text = io.StringIO()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.getvalue().splitlines()]


@contextmanager
def written_log(name: str) -> Iterator[WrittenLog]:
    """Collects what a logger writes at INFO and above."""
    written, log = WrittenLog(), logging.getLogger(name)
    handler = logging.StreamHandler(written.text)
    handler.setFormatter(JsonFormatter("test"))
    level = log.level
    limited_log.flush()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield written
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
