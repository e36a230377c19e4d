"""Checks of input. Violations are collected, so that one answer names all of them.

What may be long is measured before it is read: a text of a megabyte costs as much as a short one.
"""

import re
import unicodedata
from types import TracebackType
from typing import Self
from uuid import UUID

from runtime.errors import invalid_argument

_CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_DIRECTIONS = "\u202a-\u202e\u2066-\u2069"
"""Unicode's explicit directions, with which a text can look like another (UAX 9, 2.1 to 2.5)."""

_NOT_IN_LINES = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_DIRECTIONS}]")
_NOT_IN_LINE = re.compile(f"[\x00-\x1f\x7f-\x9f{_DIRECTIONS}\u2028\u2029]")

_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159\U00013441\U00013442")
"""What Unicode calls letters and symbols though nothing of it can be seen: Hangul's fillers, the empty Braille cell."""

_IGNORABLE_MARKS = frozenset(
    chr(point) for span in ((0x34F, 0x34F), (0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for point in range(span[0], span[1] + 1)
)  # fmt: skip
"""Combining marks that change at most the look of what is before them (Default_Ignorable_Code_Point)."""

MAX_MARKS = 30
"""Combining marks in a row, as in the Stream-Safe Text Format (UAX 15, 13): normalization sorts each such run, in time
that grows with the square of its length."""

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
        """The value in NFC without surrounding white space, `least` to `most` characters, free of control characters
        and of those that turn the direction of what follows; of one line, unless `lines`. Where `least` is not 0,
        something in it can be seen. Empty where it is not all of this, which the violation stops from being used."""
        # What surrounds or decomposes a text that is short enough makes it longer, but not without end.
        if len(value) > 2 * most + 100:
            return self._too_long(field, len(value), most)
        value = value.strip()
        if _longest_run_of_marks(value) > MAX_MARKS:
            self.add(field, f"must not have more than {MAX_MARKS} combining marks in a row")
            return ""
        value = unicodedata.normalize("NFC", value)
        if len(value) > most:
            return self._too_long(field, len(value), most)
        if (_NOT_IN_LINES if lines else _NOT_IN_LINE).search(value):
            self.add(field, "must not contain control characters" + ("" if lines else " or line breaks"))
            return ""
        if len(value) < least or (least and not any(map(is_visible, value))):
            self.add(field, "must not be empty")
        return value

    def _too_long(self, field: str, length: int, most: int) -> str:
        self.add(field, f"must have at most {most} characters, not {length}")
        return ""

    def at_most(self, field: str, number: int, most: int) -> bool:
        """Whether a collection has at most so many elements; asked before anybody loops over it."""
        if number > most:
            self.add(field, f"must be at most {most}, not {number}")
        return number <= most

    def within(self, field: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            self.add(field, f"must be from {low:,} to {high:,}")


def is_invisible(character: str) -> bool:
    """Whether nothing of a character can be seen: separators, format characters, what is unassigned or private."""
    return unicodedata.category(character)[0] in "CZ" or character in _BLANK or character in _IGNORABLE_MARKS


def is_visible(character: str) -> bool:
    """Whether a character can be seen by itself: a combining mark needs another character."""
    return not is_invisible(character) and unicodedata.category(character)[0] != "M"


def _longest_run_of_marks(value: str) -> int:
    if value.isascii():
        return 0
    longest = run = 0
    for character in value:
        run = run + 1 if unicodedata.combining(character) else 0
        longest = max(longest, run)
    return longest


def parse_uuid(field: str, value: str) -> UUID:
    """The one UUID of a request."""
    with Violations() as check:
        return check.uuid(field, value)
