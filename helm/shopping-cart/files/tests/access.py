"""What the shop asks of callers without a token, which is what the checks are: AUTH_MODE and AUTH_GUESTS say it."""

import os

from edge import Failed, exchange

TOKENS = os.environ.get("AUTH_MODE") == "jwt"
"""Whether callers are known by tokens. Otherwise everyone may do everything."""

GUESTS = os.environ.get("AUTH_GUESTS") == "true"
"""Whether callers without a token may order."""


def check_refused(
    method: str, path: str, reason: str, body: object = None, headers: dict[str, str] | None = None
) -> None:
    """Checks that a request is refused as one of a caller who is not known, for a reason."""
    status, answered, response = exchange(method, path, body, headers)
    if status != 401 or response.get("code") != 16 or f"'{reason}'" not in str(response):
        raise Failed(f"{method} {path}: {status} {response}, not 401 {reason}")
    if not (answered.get("WWW-Authenticate") or "").startswith("Bearer"):
        raise Failed(f"{method} {path}: 401 without WWW-Authenticate")
