"""Gives tokens to anyone, for trying: `POST /demo/token` at the edge.

It gives tokens of customers only, never of staff: anyone who reaches the edge can be any customer by it. Staff get
theirs from `demo token`, which needs the key. It accepts JSON only, so a page of another site cannot call it unnoticed.
"""

import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeGuard

from aiohttp import web
from google.rpc import code_pb2

from demo.tokens import CUSTOMER, TokenMaker
from runtime.access.key_set import is_object

PATH = "/demo/token"

TTL = 3600
"""Seconds for which a token is valid."""

MAX_SUBJECT = 64
"""The longest `sub`, in characters."""

MAX_BODY = 4096
"""The largest body in bytes."""


def handler(maker: TokenMaker) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Returns what handles the requests. `maker` makes the tokens."""

    async def create(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _refusal(415, "the body must be JSON with the content-type application/json")
        content = bytearray()
        async for part in request.content.iter_any():
            content += part
            if len(content) > MAX_BODY:
                return _refusal(413, f"the body is larger than {MAX_BODY} bytes")
        try:
            body: object = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if not is_object(body):
            return _invalid("request", 'must be a JSON object such as {"sub": "ada"}')
        for name in body:
            if name != "sub":
                return _invalid(name[:100], "is unknown: there is only `sub`, and tokens are those of customers")
        subject = body.get("sub")
        if not _is_subject(subject):
            return _invalid("sub", f"must be 1 to {MAX_SUBJECT} visible characters, without spaces")
        expire_time = datetime.fromtimestamp(int(time.time()) + TTL, UTC)
        token = maker.make(subject, CUSTOMER, TTL)
        return web.json_response({"token": token, "expireTime": f"{expire_time:%Y-%m-%dT%H:%M:%SZ}"})

    return create


def _is_subject(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT and value.isprintable() and " " not in value


def _invalid(field: str, problem: str) -> web.Response:
    violation = {"field": field, "description": problem}
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
    return _refusal(400, f"{field} {problem}", detail)


def _refusal(status: int, message: str, *details: dict[str, Any]) -> web.Response:
    """Returns an error as a google.rpc.Status, as the shop's API does."""
    body = {"code": code_pb2.INVALID_ARGUMENT, "message": message, "details": details}
    return web.json_response(body, status=status)
