"""The table that a suite prints at its end, and writes to a file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def report(
    reporter: pytest.TerminalReporter,
    title: str,
    headings: Sequence[str],
    rows: "Sequence[DataclassInstance]",
    path: Path,
) -> None:
    """Prints the rows as a table below a title, and writes them to a file as a JSON list of objects.

    Args:
        reporter: Where to print.
        title: The title of the table.
        headings: A heading for each field of a row.
        rows: The rows. Their first field is text, the others are numbers. Nothing happens if there are none.
        path: The file.
    """
    if not rows:
        return
    save(rows, path)
    print_table(reporter, title, headings, [tuple(asdict(row).values()) for row in rows])


def save(rows: "Sequence[DataclassInstance]", path: Path) -> None:
    """Writes rows to a file, as a JSON list of objects."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def print_table(
    reporter: pytest.TerminalReporter, title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Prints rows as a table below a title. Their first column is text, the others are numbers. None is empty."""
    lines = [tuple(headings), *(tuple("" if value is None else str(value) for value in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    reporter.section(title)
    for first, *others in lines:
        numbers = "  ".join(value.rjust(width) for value, width in zip(others, widths[1:], strict=True))
        reporter.write_line(f"{first.ljust(widths[0])}  {numbers}")
