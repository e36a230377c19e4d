"""What arrives and leaves as HTTP headers: the edge passes them on as gRPC metadata, both ways."""

import re
from typing import Any
from uuid import UUID

import grpc

from runtime.errors import invalid_argument
from runtime.validate import Violations, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]

IDEMPOTENCY_KEY = "idempotency-key"
IF_MATCH = "if-match"

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def _headers(context: Context, name: str) -> list[str]:
    return [
        value if isinstance(value, str) else value.decode("ascii", "replace")
        for key, value in context.invocation_metadata() or ()
        if key == name
    ]


def caller(context: Context, header: str) -> str:
    """Who calls, as a trusted gateway says in `header`; empty for everybody where no header is trusted.

    INVALID_ARGUMENT where it is there twice: one of the two is not the gateway's, and nobody knows which.
    """
    values = _headers(context, header) if header else []
    if len(values) > 1:
        raise invalid_argument([(header, "must be sent once")])
    return values[0] if values else ""


def request_key(context: Context, request_id: str) -> UUID | None:
    """The idempotency key, from `request_id` or the Idempotency-Key header; None where there is neither.

    INVALID_ARGUMENT where the header is there twice or is empty: its sender counts on a key, and each retry without one
    would order again.
    """
    headers = _headers(context, IDEMPOTENCY_KEY)
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
    """The etag that the resource must have, from the request or the If-Match header (RFC 9110, 13.1.1); empty: any.

    INVALID_ARGUMENT where either is not one etag, or the two differ: a condition must not be dropped in silence.
    """
    asked = _unquoted(etag)
    if etag and not asked:
        raise invalid_argument([("etag", "must be an etag")])
    values = _headers(context, IF_MATCH)
    if not values or [value.strip() for value in values] == ["*"]:
        return asked
    value = _unquoted(values[0])
    if len(values) > 1 or not value or "," in value:
        raise invalid_argument([("If-Match", "must be one etag")])
    if asked and asked != value:
        raise invalid_argument([("etag", "differs from the If-Match header")])
    return value


def expected_version(context: Context, etag: str) -> int | None:
    """The version that the resource must have, as `expected_etag` finds it and `version_of` reads it; None: any."""
    return version_of(expected_etag(context, etag))


def version_of(etag: str) -> int | None:
    """The version of a resource that an etag of ours stands for; None where there is no condition, and 0, which nothing
    has, for an etag that is none of ours."""
    if not etag:
        return None
    return int(etag) if _VERSION.fullmatch(etag) else 0


def _unquoted(etag: str) -> str:
    """An etag as it is in messages: clients may send it as the ETag header had it."""
    return etag.strip().removeprefix("W/").strip('"')


async def send_etag(context: Context, etag: str, *, weak: bool = False) -> None:
    """Sends a resource's etag as a response header; `weak` where answers with one etag may differ (RFC 9110, 8.8)."""
    await context.send_initial_metadata((("etag", f'{"W/" if weak else ""}"{etag}"'),))
