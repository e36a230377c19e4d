"""Figures in the documentation: written by the benchmark that found them, never by hand."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path


class ReportError(Exception):
    """A file has no place for the figures; the message is for people."""


def machine() -> str:
    """What ran the benchmark."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    model = found.group(1).strip() if found else platform.machine()
    return f"{os.cpu_count()} processors ({model}), {platform.system()}, Python {platform.python_version()}"


def section(command: str, conditions: str, text: str) -> str:
    """What a benchmark has found, and how."""
    return f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, on {machine()}; {conditions}.\n\n{text}"


def check(path: Path, name: str) -> None:
    """Raises ReportError where `write` would: before minutes are spent on it."""
    _place(path, name)


def write(path: Path, name: str, text: str) -> None:
    """Puts a text in the place of what is between the comments `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises:
        ReportError: the file has no such comments.
    """
    before, after = _place(path, name)
    path.write_text(f"{before}\n{text}\n{after}")


def _place(path: Path, name: str) -> tuple[str, str]:
    """What stays, up to the first comment and from the second one on."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    try:
        text = path.read_text()
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}") from None
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ReportError(f"{path} lacks the lines {begin} and {end}")
    return before + begin, end + after
