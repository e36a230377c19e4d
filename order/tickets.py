"""Tickets: each lets its bearer read, or only follow, one order for some time."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import jwt

from runtime.access.secret import RotatingSecret
from runtime.config import ConfigError, Env
from runtime.errors import TICKET_EXPIRED, ApiError, unauthenticated

TICKET_INVALID = "TICKET_INVALID"
"""The ErrorInfo reason of a ticket that is not accepted."""

ALGORITHM = "HS256"
"""Only the order service makes tickets and reads them, so one secret does both."""

DAY = 86_400.0
"""Seconds of a day."""


class Kind(StrEnum):
    """What a ticket is for: its `aud`."""

    ORDER = "order"
    """Reads and follows the order. A guest gets it with the order, and sends it as a header."""
    STREAM = "stream"
    """Follows the status of the order, and nothing else. It is for URLs."""


@dataclass(frozen=True, kw_only=True)
class TicketConfig:
    """How tickets are signed, and how long they last."""

    keys: Path
    """The folder with the secret that signs tickets: see `RotatingSecret`."""
    ttl: dict[Kind, float]
    """Seconds until a ticket expires, by kind."""

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads the configuration.

        Raises:
            ConfigError: A variable has an invalid value, or the folder is missing.
        """
        keys = env.text("TICKET_KEYS", "")
        if not keys:
            raise ConfigError("TICKET_KEYS is missing: a folder with the file `current`")
        return cls(
            keys=Path(keys),
            ttl={
                Kind.ORDER: env.seconds("AUTH_GUEST_TICKET_TTL", 30 * DAY, 60, 3_650 * DAY),
                Kind.STREAM: env.seconds("AUTH_STREAM_TICKET_TTL", 3_600, 60, DAY),
            },
        )


@dataclass(frozen=True, slots=True)
class Ticket:
    """A new ticket."""

    text: str
    expire_time: datetime


class Tickets:
    """Makes tickets and reads them. Each is a JSON Web Token (RFC 7519) with `aud`, `sub` (the order) and `exp`."""

    def __init__(self, config: TicketConfig, *, guests: bool = True) -> None:
        """Reads the keys.

        Args:
            config: How tickets are signed.
            guests: Whether guests' tickets of orders are accepted.

        Raises:
            ConfigError: A key cannot be read.
        """
        self._keys = RotatingSecret(config.keys, "TICKET_KEYS")
        self._refused = () if guests else (Kind.ORDER,)
        self._ttl = config.ttl

    def issue(self, kind: Kind, order_id: UUID) -> Ticket:
        """Returns a ticket for an order."""
        expires = int(time.time() + self._ttl[kind])
        claims = {"aud": kind.value, "sub": str(order_id), "exp": expires}
        text = jwt.encode(claims, self._keys.current, ALGORITHM)
        return Ticket(text, datetime.fromtimestamp(expires, UTC))

    def read(self, ticket: str, kinds: Collection[Kind]) -> UUID:
        """Returns the id of the order that a ticket is for.

        Args:
            ticket: What a client sent.
            kinds: The kinds of ticket that are accepted.

        Raises:
            ApiError: UNAUTHENTICATED (TICKET_INVALID or TICKET_EXPIRED).
        """
        audience = [kind.value for kind in kinds if kind not in self._refused]
        if not audience:
            raise ticket_invalid()
        for key in self._keys.accepted:
            try:
                claims: dict[str, Any] = jwt.decode(
                    ticket,
                    key,
                    algorithms=[ALGORITHM],
                    audience=audience,
                    options={"require": ["aud", "sub", "exp"]},
                )
                return UUID(claims["sub"])
            except jwt.InvalidSignatureError:
                continue  # another key may have signed it
            except jwt.ExpiredSignatureError:
                raise unauthenticated(TICKET_EXPIRED, "the order's ticket has expired") from None
            except (jwt.InvalidTokenError, ValueError):
                break
        raise ticket_invalid()


def ticket_invalid(text: str = "the order's ticket is not valid") -> ApiError:
    """Returns the error for a ticket that is not accepted."""
    return unauthenticated(TICKET_INVALID, text)
