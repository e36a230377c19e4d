"""Writes the figures of the benchmarks into the documentation."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path


class ReportError(Exception):
    """A file has no place for the figures. The message is for people."""


def machine() -> str:
    """Describes the machine that runs the benchmark."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    model = found.group(1).strip() if found else platform.machine()
    return f"{os.cpu_count()} processors ({model}), {platform.system()}, Python {platform.python_version()}"


def section(command: str, conditions: str, text: str) -> str:
    """Returns the text of a benchmark: its command, the machine, the conditions and the figures."""
    return f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, on {machine()}; {conditions}.\n\n{text}"


def check(path: Path, name: str) -> None:
    """Raises ReportError if `write` would, before the benchmark takes its minutes."""
    _place(path, name)


def write(path: Path, name: str, text: str) -> None:
    """Replaces what is between the comments `<!-- NAME -->` and `<!-- end of NAME -->` by a text.

    Raises:
        ReportError: The file has no such comments.
    """
    before, after = _place(path, name)
    path.write_text(f"{before}\n{text}\n{after}")


def _place(path: Path, name: str) -> tuple[str, str]:
    """Returns what stays: the text up to the first comment, and from the second one on."""
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
