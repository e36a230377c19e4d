"""Checks of input. Violations are collected, so that one answer names all of them."""

import re
import unicodedata
from types import TracebackType
from typing import Self
from uuid import UUID

from runtime.errors import invalid_argument

_CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Unicode's explicit directions, with which a text can look like another (UAX 9, 2.1 to 2.5)."""

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
        """The value without surrounding white space, `least` to `most` characters, free of control characters and of
        those that turn the direction of what follows. Where `least` is not 0, something in it can be seen."""
        value = value.strip()
        allowed = "\t\n\r" if lines else ""
        if any((unicodedata.category(c) == "Cc" and c not in allowed) or c in _TURNS for c in value):
            self.add(field, "must not contain control characters")
        if len(value) < least or (least and all(unicodedata.category(c)[0] in "CZ" for c in value)):
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
