"""Checks of requests. Violations are collected, so one error names all of them.

The length of a text is checked before its characters, so a text of a megabyte costs as much as a short one.
"""

import re
import unicodedata
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from runtime.errors import invalid_argument

is_uuid = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}").fullmatch
"""Returns a match if a text is a UUID in its canonical form, in upper or lower case, or None."""

_DIRECTIONS = "\u202a-\u202e\u2066-\u2069"
"""Unicode's explicit directional characters, which make one text look like another (UAX 9, 2.1 to 2.5)."""

_NOT_IN_LINES = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_DIRECTIONS}]")
_NOT_IN_LINE = re.compile(f"[\x00-\x1f\x7f-\x9f{_DIRECTIONS}\u2028\u2029]")

_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159\U00013441\U00013442")
"""Letters and symbols of Unicode that are invisible: Hangul's fillers, the empty Braille cell, and similar ones."""

_IGNORABLE_MARKS = frozenset(
    chr(point) for span in ((0x34F, 0x34F), (0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for point in range(span[0], span[1] + 1)
)  # fmt: skip
"""Combining marks that are invisible by themselves (Default_Ignorable_Code_Point)."""

MAX_MARKS = 30
"""Combining marks in a row, as in the Stream-Safe Text Format (UAX 15, 13). Normalization sorts each such run, in time
quadratic to its length."""

NIL = UUID(int=0)

NOT_A_UUID = "must be a UUID, as in 123e4567-e89b-42d3-a456-426614174000"


class Violations:
    """Collects the field violations of a request.

    As a context manager, it raises INVALID_ARGUMENT at the end of the block if there are any.
    """

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raises INVALID_ARGUMENT if a violation was added."""
        if self._rows:
            raise invalid_argument(self._rows)

    def add(self, field: str, problem: str) -> None:
        """Adds a violation: the path of a field, and what is wrong with it."""
        self._rows.append((field, problem))

    def uuid(self, field: str, value: str) -> UUID:
        """Returns the UUID that a text is the canonical form of. Adds a violation and returns NIL if it is not one."""
        if not is_uuid(value):
            self.add(field, NOT_A_UUID)
            return NIL
        return UUID(value)

    def text(self, field: str, value: str, *, max_length: int, min_length: int = 0, multiline: bool = False) -> str:
        """Returns a text in NFC and without surrounding white space.

        Adds a violation and returns an empty text if the result has more than `max_length` characters, control
        characters, characters that change the direction of the text, or line breaks (unless `multiline`). If
        `min_length` is not 0, the result must also have that many characters, at least one of which is visible.
        """
        # White space and decomposed characters make a valid text longer than the limit, but not without bound.
        if len(value) > 2 * max_length + 100:
            return self._too_long(field, len(value), max_length)
        value = value.strip()
        if not value.isascii():
            if _longest_run_of_marks(value) > MAX_MARKS:
                self.add(field, f"must not have more than {MAX_MARKS} combining marks in a row")
                return ""
            value = unicodedata.normalize("NFC", value)
        if len(value) > max_length:
            return self._too_long(field, len(value), max_length)
        if (_NOT_IN_LINES if multiline else _NOT_IN_LINE).search(value):
            self.add(field, "must not contain control characters" + ("" if multiline else " or line breaks"))
            return ""
        if len(value) < min_length or (min_length and not any(map(is_visible, value))):
            self.add(field, "must not be empty")
        return value

    def _too_long(self, field: str, length: int, max_length: int) -> str:
        self.add(field, f"must be at most {max_length:,} characters, not {length:,}")
        return ""

    def distinct(self, field: str, ids: Sequence[str], problem: str) -> None:
        """Adds `problem` for each UUID that is in `ids` before. `field` is a format of its path, as in `ids[{}]`."""
        if len(set(map(str.lower, ids))) == len(ids):
            return
        seen: set[str] = set()
        for index, each in enumerate(map(str.lower, ids)):
            if each in seen and is_uuid(each):
                self.add(field.format(index), problem)
            seen.add(each)


def is_invisible(character: str) -> bool:
    """Returns whether a character is invisible: separators, format characters, unassigned and private code points."""
    return unicodedata.category(character)[0] in "CZ" or character in _BLANK or character in _IGNORABLE_MARKS


def is_visible(character: str) -> bool:
    """Returns whether a character is visible by itself. A combining mark is not."""
    return not is_invisible(character) and unicodedata.category(character)[0] != "M"


def _longest_run_of_marks(value: str) -> int:
    longest = run = 0
    for character in value:
        run = run + 1 if unicodedata.combining(character) else 0
        longest = max(longest, run)
    return longest


def parse_uuid(field: str, value: str) -> UUID:
    """Returns the UUID that a text is the canonical form of. Raises INVALID_ARGUMENT if it is not one."""
    if not is_uuid(value):
        raise invalid_argument([(field, NOT_A_UUID)])
    return UUID(value)
