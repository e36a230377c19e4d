"""The gate in front of every method: who calls, and whether this method is open to them."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from runtime.access.caller import ANYBODY, NOBODY, Caller
from runtime.access.caller_hash import CallerHash
from runtime.access.config import AccessConfig
from runtime.access.credential import CREDENTIAL, Credential
from runtime.access.rules import Guests, Level, Rule
from runtime.errors import TOKEN_EXPIRED, TOKEN_INVALID, ApiError, invalid_argument, permission_denied, unauthenticated
from runtime.headers import Context, header_values
from runtime.logs import LogOnce

if TYPE_CHECKING:
    from runtime.access.keys import Keys

log = logging.getLogger(__name__)

AUTHORIZATION = "authorization"
"""The metadata key of a caller's token, as in `Bearer eyJ…`."""

ORDER_TICKET = "order-ticket"
"""The metadata key of a guest's ticket."""

CART_SECRET = "cart-secret"  # noqa: S105 - the name of a header
"""The metadata key of the secret of a guest's cart."""

TOKEN_REQUIRED = "TOKEN_REQUIRED"  # noqa: S105 - a reason, no secret
"""The ErrorInfo reason of a call without a token."""

CREDENTIAL_REQUIRED = "CREDENTIAL_REQUIRED"
"""The ErrorInfo reason of an internal call without the shop's credential."""

STAFF_REQUIRED = "STAFF_REQUIRED"
"""The ErrorInfo reason of a customer's call to a method for staff."""

REASONS = (TOKEN_REQUIRED, TOKEN_INVALID, TOKEN_EXPIRED, STAFF_REQUIRED, CREDENTIAL_REQUIRED, "UNAVAILABLE")
"""Why calls are not admitted: the ErrorInfo reason, or the code of an error without one. UNAVAILABLE: there are no keys
to verify the token with."""

_INSTEAD = {
    Guests.WITH_TICKET: (ORDER_TICKET, f", or an order's ticket in the header {ORDER_TICKET}"),
    Guests.WITH_SECRET: (CART_SECRET, f", or a cart's secret in the header {CART_SECRET}"),
}
"""The header that a guest sends instead of a token, and how an error says so."""

MAX_WAITING_ELSEWHERE = 10
"""How many calls may wait for new keys if the client of one more waits in another process, whose places all clients
share."""

Admit = Callable[[Context], Awaitable[Caller]]
"""Returns who makes a call. Raises an ApiError if the method is not open to them."""


class Verifier(Protocol):
    """Verifies tokens. `runtime.access.tokens` implements it."""

    async def verify(self, token: str, max_waiting: int | None = None) -> Caller:
        """Returns whom a token stands for.

        Args:
            token: The token.
            max_waiting: How many calls may wait for new keys if this one is to wait, too; None: as many as ever.

        Raises:
            ApiError: UNAUTHENTICATED if the token is not accepted, UNAVAILABLE if the keys for it cannot be had now.
        """
        ...


def bearer_token(authorization: list[str]) -> str:
    """Returns the token of the `authorization` headers of a call; empty if there is none.

    Raises:
        ApiError: UNAUTHENTICATED if the header is not `Bearer` and a token, or occurs twice.
    """
    if not authorization:
        return ""
    scheme, _, token = authorization[0].partition(" ")
    token = token.strip(" ")
    if len(authorization) > 1 or scheme.lower() != "bearer" or not token or " " in token:
        raise unauthenticated(TOKEN_INVALID, "the authorization header must be sent once, as in `Bearer eyJ…`")
    return token


class Gate:
    """Decides for each method who may call it."""

    def __init__(
        self, config: AccessConfig, credential: Credential, verifier: Verifier | None, keys: "Keys | None" = None
    ) -> None:
        """Prepares the decisions.

        Args:
            config: Who may call.
            credential: What internal calls have to send.
            verifier: Verifies tokens; None if the shop does not.
            keys: The keys that it verifies them with, if the edge is to have them too.
        """
        self.keys = keys
        self.refusals: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        """How many calls were not admitted, by reason, as in REASONS."""
        self._hash = CallerHash(credential)
        self._credential = credential
        self._optional_until = config.optional_until
        self._missing = LogOnce(log, logging.WARNING)
        self._caller_header = config.caller_header
        self._verifier = verifier
        self._guests = config.guests

    def admission(self, rule: Rule) -> Admit:
        """Returns what decides for the methods of a rule, and counts refusals."""
        admit = self._admission(rule)
        return admit if admit is _admit_anybody else self._counted(admit)

    def _counted(self, admit: Admit) -> Admit:
        async def admit_and_count(context: Context) -> Caller:
            try:
                return await admit(context)
            except ApiError as error:
                self._count(error)
                raise

        return admit_and_count

    def _count(self, error: ApiError) -> None:
        self.refusals[error.reason or error.code.name] += 1

    def _admission(self, rule: Rule) -> Admit:
        if rule.level is Level.INTERNAL:
            return self._admit_internal
        if self._verifier is None:
            return self._admit_named if self._caller_header else _admit_anybody
        verifier = self._verifier
        allowed = rule.level is Level.PUBLIC or (self._guests and rule.guests is Guests.ALLOWED)
        header, also = _INSTEAD.get(rule.guests, ("", "")) if self._guests else ("", "")
        staff = rule.level is Level.STAFF

        async def admit(context: Context) -> Caller:
            token = bearer_token(header_values(context, AUTHORIZATION))
            if token:
                caller = await verifier.verify(token)
                if staff and not caller.is_staff:
                    raise permission_denied(STAFF_REQUIRED, "this method is for staff only")
                return caller
            if allowed or (header and header_values(context, header)):
                return NOBODY
            raise unauthenticated(TOKEN_REQUIRED, f"this method needs a bearer token in the authorization header{also}")

        return admit

    def description(self, rule: Rule) -> Callable[[Caller], str]:
        """Returns what describes the callers of the methods of a rule in a log: without naming them.

        A caller is a hash, or `guest`, or `internal`. The description is empty if callers are not told apart.
        """
        if rule.level is Level.INTERNAL:
            return lambda _: "internal"

        def describe(caller: Caller) -> str:
            if name := caller.subject or caller.scope:
                return self._hash(name)
            return "guest" if caller.is_guest else ""

        return describe

    async def identify(self, authorization: list[str]) -> Caller:
        """Returns whom the `authorization` headers of a client stand for, which another process passes on.

        Raises:
            ApiError: They are not accepted.
        """
        if self._verifier is None:
            return ANYBODY
        try:
            token = bearer_token(authorization)
            return await self._verifier.verify(token, MAX_WAITING_ELSEWHERE) if token else NOBODY
        except ApiError as error:
            self._count(error)
            raise

    async def _admit_internal(self, context: Context) -> Caller:
        given = header_values(context, CREDENTIAL)
        if self._credential.accepts(given):
            return NOBODY
        if given:
            raise permission_denied(CREDENTIAL_REQUIRED, "this method is for the shop's own processes only")
        if self._optional_until and datetime.now(UTC) < self._optional_until:
            self._missing(f"internal calls without a credential are accepted until {self._optional_until:%FT%TZ}")
            return NOBODY
        raise unauthenticated(CREDENTIAL_REQUIRED, "this method is for the shop's own processes only")

    async def _admit_named(self, context: Context) -> Caller:
        given = header_values(context, self._caller_header)
        if len(given) > 1:
            # One of the two is not from the gateway.
            raise invalid_argument([(self._caller_header, "must be sent once")])
        return Caller(is_staff=True, scope=given[0]) if given else ANYBODY


async def _admit_anybody(_: Context) -> Caller:
    return ANYBODY
