"""Page tokens: where the next page begins, bound to the query that began it (AIP-158)."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from runtime.errors import invalid_argument

Key = str | int | float

Row = TypeVar("Row")
Sent = TypeVar("Sent", bound=Message)

DEFAULT_SIZE = 20
LARGEST_SIZE = 100
INVALID_TOKEN = "is not a valid page token"  # noqa: S105  # a message
LARGEST_PAGE = 3 * 1024 * 1024
"""Bytes of a page's messages; by default, gRPC clients refuse an answer of 4 MiB."""


def page_size(asked: int, default: int = DEFAULT_SIZE, maximum: int = LARGEST_SIZE) -> int:
    """Returns the number of rows of a page. Asking for more than `maximum` is no error; it gets fewer (AIP-158)."""
    return min(asked or default, maximum)


def fitting(messages: Iterable[Message]) -> int:
    """How many of the messages, from the first, one answer can hold: at least one. A page may be shorter than asked for
    (AIP-158)."""
    number = size = 0
    for each in messages:
        size += each.ByteSize()
        if number and size > LARGEST_PAGE:
            break
        number += 1
    return number


def page(
    rows: Sequence[Row], size: int, message_of: Callable[[Row], Sent], token_of: Callable[[Row], str]
) -> tuple[list[Sent], str]:
    """The messages of one page, and the token of the next one, which its last row gives; empty where there is none.
    `rows` has one beyond `size` if there are more."""
    messages = [message_of(row) for row in rows[:size]]
    number = fitting(messages)
    return messages[:number], token_of(rows[number - 1]) if len(rows) > number else ""


def whole(field: str, messages: Sequence[Message]) -> None:
    """Raises INVALID_ARGUMENT where one answer cannot hold all of the messages that `field` asks for."""
    number = fitting(messages)
    if number < len(messages):
        raise invalid_argument([(field, f"the response would be too large; ask for at most {number} at a time")])


def _fingerprint(query: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(query).encode()).hexdigest()[:16]


def encode(query: tuple[str, ...], keys: list[Key]) -> str:
    """A URL-safe token for the rows after `keys`, the sort keys of the last row, in `query` (filters and order)."""
    text = json.dumps([_fingerprint(query), *keys], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(query: tuple[str, ...], token: str, types: tuple[type, ...]) -> list[Key]:
    """The keys of a token, one of each of `types`. INVALID_ARGUMENT if it is not a token of this very query."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        rows: list[Key] = json.loads(text)
        fingerprint, *keys = rows
        for key in keys:
            # Neither NUL nor half a surrogate pair is text to PostgreSQL.
            if isinstance(key, str) and b"\0" in key.encode():
                raise ValueError
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise invalid_argument([("page_token", INVALID_TOKEN)]) from None
    if fingerprint != _fingerprint(query):
        raise invalid_argument([("page_token", "is a page token of another query")])
    if len(keys) != len(types) or not all(type(key) is kind for key, kind in zip(keys, types, strict=True)):
        raise invalid_argument([("page_token", INVALID_TOKEN)])
    return keys
