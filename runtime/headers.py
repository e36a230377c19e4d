"""HTTP headers of requests and responses. The edge converts them to gRPC metadata and back."""

import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import grpc

from runtime.errors import invalid_argument
from runtime.validate import Violations, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]

IDEMPOTENCY_KEY = "idempotency-key"
IF_MATCH = "if-match"

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


_READ: ContextVar[tuple[object, Sequence[tuple[str, str | bytes]]]] = ContextVar("read metadata", default=(None, ()))
"""The last call whose metadata was read, and its metadata: grpc converts all of it each time that it is asked."""


def metadata(context: Context) -> Sequence[tuple[str, str | bytes]]:
    """Returns all headers of a call."""
    call, read = _READ.get()
    if call is not context:
        read = tuple(context.invocation_metadata() or ())
        _READ.set((context, read))
    return read


def header_values(context: Context, name: str) -> list[str]:
    """Returns all values of a header of a call."""
    return [
        value if isinstance(value, str) else value.decode("ascii", "replace")
        for key, value in metadata(context)
        if key == name
    ]


def request_key(context: Context, request_id: str) -> UUID | None:
    """Returns the idempotency key, from the request or the Idempotency-Key header; None if there is none.

    Raises:
        ApiError: INVALID_ARGUMENT if a key is not a UUID, if the header occurs twice, or if both differ. An empty
            header is invalid too: its sender relies on a key, and each retry without one would place another order.
    """
    headers = header_values(context, IDEMPOTENCY_KEY)
    if not headers:
        return parse_uuid("request_id", request_id) if request_id else None
    with Violations() as check:
        from_field = check.uuid("request_id", request_id) if request_id else None
        from_header = None
        if len(headers) > 1:
            check.add("Idempotency-Key", "must be sent once")
        else:
            from_header = check.uuid("Idempotency-Key", headers[0].strip(' "'))
    if from_field and from_header and from_field != from_header:
        raise invalid_argument([("request_id", "differs from the Idempotency-Key header")])
    return from_field or from_header


def expected_etag(context: Context, etag: str) -> str:
    """Returns the etag that the resource must have, from the request or the If-Match header (RFC 9110, 13.1.1).

    Returns:
        The etag without quotes; empty if there is no condition.

    Raises:
        ApiError: INVALID_ARGUMENT if either is not one etag, or if both differ. A condition is never ignored.
    """
    from_request = _unquoted(etag)
    if etag and not from_request:
        raise invalid_argument([("etag", "must be an etag")])
    given = header_values(context, IF_MATCH)
    if not given or [value.strip() for value in given] == ["*"]:
        return from_request
    value = _unquoted(given[0])
    if len(given) > 1 or not value or "," in value:
        raise invalid_argument([("If-Match", "must be one etag")])
    if from_request and from_request != value:
        raise invalid_argument([("etag", "differs from the If-Match header")])
    return value


def expected_version(context: Context, etag: str) -> int | None:
    """Returns the version that the resource must have; None if there is no condition.

    Raises:
        ApiError: As `expected_etag`.
    """
    return version_of(expected_etag(context, etag))


def version_of(etag: str) -> int | None:
    """Returns the version that an etag stands for.

    Returns:
        None for an empty etag, which is no condition; 0, which no resource has, for an etag that is not ours.
    """
    if not etag:
        return None
    return int(etag) if _VERSION.fullmatch(etag) else 0


def _unquoted(etag: str) -> str:
    """Returns an etag as in messages. Clients may send it in the form of the ETag header."""
    return etag.strip().removeprefix("W/").strip('"')


async def send_etag(context: Context, etag: str, *, weak: bool = False) -> None:
    """Sends the etag of a resource as a response header.

    Args:
        context: The context of the RPC.
        etag: The etag without quotes.
        weak: Whether responses with the same etag may differ (RFC 9110, 8.8).
    """
    await context.send_initial_metadata((("etag", f'{"W/" if weak else ""}"{etag}"'),))
