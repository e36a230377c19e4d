"""Lists in pages: the size of a page, and the tokens that continue a list (AIP-158).

A page token holds the sort keys of the last row of a page, so a later page starts after that row even if others were
added or removed meanwhile. It also holds a digest of the query, so a token cannot continue another list.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from runtime import times
from runtime.errors import ApiError, invalid_argument

SortKey = str | int | float | datetime | UUID
"""A value that a list is sorted by."""

Position = tuple[SortKey, ...]
"""The sort keys of one row: its place in a list."""

Row = TypeVar("Row")
Sent = TypeVar("Sent", bound=Message)

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
MAX_PAGE_BYTES = 3 * 1024 * 1024
"""Bytes of all messages of a page. By default, gRPC clients refuse a response of more than 4 MiB."""


@dataclass(frozen=True)
class Cursor:
    """A place in one list, from which a page is read.

    Attributes:
        query: What the list depends on: its name, its filters and its order.
        types: The type of each sort key.
        after: The sort keys of the last row of the page before. None for the first page.
    """

    query: tuple[str, ...]
    types: tuple[type[SortKey], ...]
    after: Position | None = None

    @classmethod
    def parse(cls, token: str, query: tuple[str, ...], types: tuple[type[SortKey], ...]) -> Self:
        """Reads a page token, which may be forged. An empty token is the first page.

        Raises:
            ApiError: INVALID_ARGUMENT if `token` is not a page token of this query.
        """
        return cls(query, types, _decode(token, query, types) if token else None)

    def token(self, keys: Position) -> str:
        """Returns the URL-safe token of the page after the row with these sort keys."""
        values = [_to_json(key) for key in keys]
        text = json.dumps([_digest(self.query), *values], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def page(
        self,
        rows: Sequence[Row],
        size: int,
        to_message: Callable[[Row], Sent],
        keys_of: Callable[[Row], Position],
    ) -> tuple[list[Sent], str]:
        """Makes a page of rows. It has fewer than `size` messages where more would not fit into a response.

        Args:
            rows: The rows after this cursor. More than `size` of them say that another page follows.
            size: The most messages that the page may have.
            to_message: Makes the message of a row.
            keys_of: Returns the sort keys of a row, one for each of `types`.

        Returns:
            The messages, and the token of the next page: empty on the last page.
        """
        messages = [to_message(row) for row in rows[:size]]
        number = count_fitting(messages)
        return messages[:number], self.token(keys_of(rows[number - 1])) if len(rows) > number else ""


def page_size(value: int, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """Returns how many rows a page gets. A value above the maximum is lowered to it (AIP-158)."""
    return min(value or default, maximum)


def count_fitting(messages: Iterable[Message]) -> int:
    """Returns how many of the first messages fit into one response: at least one, since the list must go on."""
    number = size = 0
    for message in messages:
        size += message.ByteSize()
        if number and size > MAX_PAGE_BYTES:
            break
        number += 1
    return number


def check_batch_fits(field: str, messages: Sequence[Message]) -> None:
    """Checks that one response can hold all messages that `field` of a request asks for.

    Raises:
        ApiError: INVALID_ARGUMENT if it cannot.
    """
    number = count_fitting(messages)
    if number < len(messages):
        raise invalid_argument([(field, f"the response would be too large; request at most {number} at a time")])


def _digest(query: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(query).encode()).hexdigest()[:16]


def _to_json(key: SortKey) -> str | int | float:
    if isinstance(key, datetime):
        return times.microseconds(key)
    return str(key) if isinstance(key, UUID) else key


def _decode(token: str, query: tuple[str, ...], types: tuple[type[SortKey], ...]) -> Position:
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        digest, *values = json.loads(text)
        if digest != _digest(query):
            raise invalid_argument([("page_token", "is a page token of a different query")])
        return tuple([_from_json(value, kind) for value, kind in zip(values, types, strict=True)])
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError):
        raise _invalid_token() from None


def _from_json(value: object, kind: type[SortKey]) -> SortKey:
    """Reads a sort key.

    Raises:
        ValueError: The value is not of this kind, or PostgreSQL has no such value.
        OverflowError: The time is too far away.
    """
    # The exact type: a bool is an int too.
    if kind is datetime and type(value) is int:
        return times.of_microseconds(value)
    if kind is datetime and type(value) is str:
        time = datetime.fromisoformat(value)
        if time.tzinfo is None:
            raise ValueError("a time without a time zone")
        return time.astimezone(UTC)
    if kind is UUID and type(value) is str:
        return UUID(value)
    if type(value) is not kind or not isinstance(value, str | int | float):
        raise ValueError("not of this kind")
    # PostgreSQL has no NUL in a text; encode() raises for half a surrogate pair, which it has not either.
    if isinstance(value, str) and b"\0" in value.encode():
        raise ValueError("not a text")
    return value


def _invalid_token() -> ApiError:
    return invalid_argument([("page_token", "is not a valid page token")])
