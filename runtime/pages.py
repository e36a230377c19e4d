"""Page tokens: where the next page begins, bound to the query that began it (AIP-158)."""

import base64
import binascii
import hashlib
import json

from runtime.errors import invalid_argument

Key = str | int | float

DEFAULT_SIZE = 20
LARGEST_SIZE = 100


def page_size(value: int) -> int:
    """How many rows a page gets. Too many is not an error, it is answered with fewer (AIP-158)."""
    if value < 0:
        raise invalid_argument([("page_size", "must not be negative")])
    return min(value or DEFAULT_SIZE, LARGEST_SIZE)


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
    except (binascii.Error, ValueError, TypeError):
        raise invalid_argument([("page_token", "is not a page token")]) from None
    if fingerprint != _fingerprint(query):
        raise invalid_argument([("page_token", "belongs to another query")])
    if len(keys) != len(types) or not all(type(key) is kind for key, kind in zip(keys, types, strict=True)):
        raise invalid_argument([("page_token", "is not a page token")])
    return keys
