"""Who makes a call. Knows neither gRPC nor tokens, so that a domain can ask what belongs to whom."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, as far as that was verified."""

    subject: str = ""
    """Who the caller is: the `sub` of the token. Empty for a guest, and if the shop verifies no tokens."""
    is_staff: bool = False
    """Whether the caller sees and moves what belongs to others. True for everybody if the shop verifies no tokens."""
    scope: str = ""
    """Keeps the idempotency keys of different callers apart."""

    @property
    def is_guest(self) -> bool:
        """Whether the shop verifies tokens, and the caller has none."""
        return not self.subject and not self.is_staff

    @property
    def sees_only(self) -> str | None:
        """The owner whose things the caller may list and change; None: everybody's.

        It is empty for a guest, who owns nothing. So a statement must not match it with what belongs to nobody.
        """
        return None if self.is_staff else self.subject

    def owns(self, owner: str) -> bool:
        """Returns whether what belongs to `owner` is the caller's own. What belongs to nobody (empty) never is."""
        return bool(owner) and owner == self.subject

    def may_see(self, owner: str) -> bool:
        """Returns whether the caller may see what belongs to `owner`. To others it must seem not to exist."""
        return self.is_staff or self.owns(owner)


NOBODY = Caller()
"""A caller who has shown nothing: a guest."""

ANYBODY = Caller(is_staff=True)
"""Every caller, if the shop verifies no tokens."""

CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY)
"""The caller of the running RPC. The guard sets it before it runs a method."""


def current() -> Caller:
    """Returns the caller of the running RPC."""
    return CALLER.get()
