"""Errors of a domain: why a request is refused, in terms that need neither gRPC nor PostgreSQL.

A domain raises them, and `runtime/errors.py` translates them into google.rpc.Status.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum


class ErrorKind(StrEnum):
    """The kind of an error. The names are those of google.rpc.Code."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"


class DomainError(Exception):
    """A request that a rule refuses. Clients see all of it.

    Attributes:
        kind: The kind of the error.
        message: What is wrong, for people.
        reason: What is wrong, for programs: the reason of an ErrorInfo, or empty.
        metadata: The metadata of that ErrorInfo.
        violations: What is wrong with which field of the request: pairs of a field path and a description.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.reason = reason
        self.metadata: Mapping[str, str] = metadata or {}
        self.violations = violations


def join_first(texts: Sequence[str], limit: int) -> str:
    """Returns the first texts as one, and how many more there are."""
    more = len(texts) - limit
    return "; ".join(texts[:limit]) + (f"; and {more} more" if more > 0 else "")
