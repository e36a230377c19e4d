"""Makes tokens for trying: as an OpenID provider would, but for whoever has the key."""

import re
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from demo.signing_key import ALGORITHM, SigningKey
from runtime.access.config import TokenConfig
from runtime.access.tokens import MAX_SUBJECT_LENGTH
from runtime.config import ConfigError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""The units of a lifetime, in seconds."""

MAX_TTL = 365 * UNITS["d"]
"""The longest lifetime of a token, in seconds."""

CUSTOMER, STAFF = "customer", "staff"
ROLES = (CUSTOMER, STAFF)

STAFF_TTL = 300
"""Seconds for which the demo's own tokens are valid. It makes a new one when half of that is over."""

DEMO_SUBJECT = "demo"
"""The `sub` of the demo's own tokens."""

_RESERVED = frozenset({"iss", "aud", "sub", "exp", "nbf", "iat", "jti"})


def parse_ttl(text: str) -> int:
    """Returns a lifetime like `90s`, `15m`, `1h` or `7d` in seconds. Raises ConfigError if it is none."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text, re.ASCII)
    if not found:
        raise ConfigError(f"the lifetime of a token must be like 90s, 15m, 1h or 7d, not {text!r}")
    seconds = int(found[1]) * UNITS[found[2]]
    if seconds > MAX_TTL:
        raise ConfigError(f"the lifetime of a token must be at most 365d, not {text!r}")
    return seconds


class TokenMaker:
    """Makes the tokens of one issuer."""

    def __init__(self, key: SigningKey, config: TokenConfig) -> None:
        """Prepares the tokens.

        Args:
            key: Signs them.
            config: Which tokens the shop accepts, and how it knows staff.

        Raises:
            ConfigError: The shop would not accept them.
        """
        if ALGORITHM not in config.algorithms:
            raise ConfigError(f"AUTH_ALGORITHMS must include {ALGORITHM}, with which the demo signs its tokens")
        self._key = key
        self._config = config
        self._staff = staff_claims(config.staff_claim, config.staff_value)

    def make(self, subject: str, role: str, ttl: float) -> str:
        """Returns a token.

        Args:
            subject: Whom it is for: its `sub`.
            role: One of ROLES.
            ttl: Seconds for which it is valid.

        Raises:
            ConfigError: The subject or the role cannot be used.
        """
        if not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
            raise ConfigError(f"the subject of a token must have 1 to {MAX_SUBJECT_LENGTH} printable characters")
        if role not in ROLES:
            raise ConfigError(f"the role must be {' or '.join(ROLES)}, not {role!r}")
        now = int(time.time())
        return self._key.sign(
            {
                "iss": self._config.issuer,
                "aud": self._config.audiences[0],
                "sub": subject,
                "iat": now,
                "exp": now + int(ttl),
                "jti": uuid4().hex,
                **(self._staff if role == STAFF else {}),
            }
        )


class DemoToken:
    """The token by which the demo acts as staff: a new one before the last one expires."""

    def __init__(self, maker: TokenMaker, clock: Callable[[], float] = time.monotonic) -> None:
        self._maker = maker
        self._clock = clock
        self._token = ""
        self._renew_at = 0.0

    def current(self) -> str:
        """Returns a token that is valid for some minutes."""
        if not self._token or self._clock() >= self._renew_at:
            self._renew_at = self._clock() + STAFF_TTL / 2
            self._token = self._maker.make(DEMO_SUBJECT, STAFF, STAFF_TTL)
        return self._token


def staff_claims(claim: str, value: str) -> dict[str, Any]:
    """Returns the claims by which the shop knows staff.

    Args:
        claim: The claim's name, or its path, as in AUTH_STAFF_CLAIM. A URL is a name, although it has dots.
        value: The value that staff have, as in AUTH_STAFF_VALUE.

    Raises:
        ConfigError: Every token has this claim, for another purpose.
    """
    names = [claim] if "/" in claim else claim.split(".")
    if names[0] in _RESERVED:
        raise ConfigError(f"AUTH_STAFF_CLAIM: the demo cannot make tokens whose claim {names[0]!r} says who is staff")
    # `scope` is a text of words (RFC 8693, 4.2); what providers call roles or groups is a list.
    claims: Any = value if names[-1] == "scope" else [value]
    for name in reversed(names):
        claims = {name: claims}
    return dict(claims)
