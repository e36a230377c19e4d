"""Checks of input. Violations are collected, so that one answer names all of them."""

import re
from types import TracebackType
from typing import Self
from uuid import UUID

from runtime.errors import invalid_argument

_CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NIL = UUID(int=0)


class Violations:
    """Collects field violations; leaving the `with` block raises INVALID_ARGUMENT if there are any."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._rows:
            raise invalid_argument(self._rows)

    def add(self, field: str, text: str) -> None:
        self._rows.append((field, text))

    def uuid(self, field: str, value: str) -> UUID:
        """A UUID in its canonical form; NIL where it is none, which the violation stops from being used."""
        if not _CANONICAL_UUID.fullmatch(value):
            self.add(field, "must be a UUID, as in 123e4567-e89b-42d3-a456-426614174000")
            return NIL
        return UUID(value)

    def text(self, field: str, value: str, *, most: int, least: int = 0, lines: bool = False) -> str:
        """The value without surrounding white space, `least` to `most` characters, free of control characters."""
        value = value.strip()
        allowed = "\t\n\r" if lines else ""
        if any(c < " " or c == "\x7f" for c in value.translate({ord(c): None for c in allowed})):
            self.add(field, "must not contain control characters")
        if len(value) < least:
            self.add(field, "must not be empty")
        elif len(value) > most:
            self.add(field, f"must have at most {most} characters, not {len(value)}")
        return value

    def within(self, field: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            self.add(field, f"must be from {low:,} to {high:,}")


def parse_uuid(field: str, value: str) -> UUID:
    """The one UUID of a request."""
    with Violations() as check:
        return check.uuid(field, value)
