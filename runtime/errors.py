"""Errors as clients see them: google.rpc.Status with standard details (AIP-193)."""

import math
import re
import string
from collections.abc import Iterable
from urllib.parse import quote, unquote

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from runtime.refusals import DomainError, join_first

DOMAIN = "shop"
"""The `domain` of every ErrorInfo."""

DETAILS_KEY = "grpc-status-details-bin"
"""The key of the trailing metadata that carries a google.rpc.Status."""

RETRY_AFTER_KEY = "retry-after"
"""The key of the trailing metadata that becomes the HTTP header Retry-After."""

CHALLENGE_KEY = "www-authenticate"
"""The key of the trailing metadata that becomes the HTTP header WWW-Authenticate."""

DATABASE_FULL = "DATABASE_FULL"
"""The ErrorInfo reason of a write to a database whose disk is full."""

TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105 - a reason, no secret
"""The ErrorInfo reason of a call with a token that is not accepted."""

TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - likewise
"""The ErrorInfo reason of a call with a token that has expired."""

TICKET_EXPIRED = "TICKET_EXPIRED"
"""The ErrorInfo reason of a call with an order's ticket that has expired."""

FULL_RETRY_AFTER = 30.0
"""Seconds after which to retry such a write: an operator has to make room first."""

DATABASE_READ_ONLY = "DATABASE_READ_ONLY"
"""The ErrorInfo reason of a write to a database that accepts none."""

READ_ONLY_RETRY_AFTER = 5.0
"""Seconds after which to retry such a write."""

QUERY_TIMEOUT = "QUERY_TIMEOUT"
"""The ErrorInfo reason of a statement that took too long. If the caller's own deadline passes, there is no reason."""

MAX_TEXT_BYTES = 1_800
"""The longest text of an error in bytes, percent-encoded as grpc sends it. The text is sent twice, as the message and
in the details, and the trailers of a call must stay below 8 KiB: clients get RESOURCE_EXHAUSTED if they are longer."""

MAX_VIOLATIONS = 10
"""How many field violations an error lists."""


class ApiError(Exception):
    """An error that a client may see. It contains no text of a driver and no name of an exception.

    Attributes:
        code: The gRPC status code.
        text: What went wrong, for people.
        details: What went wrong, for programs, as in google.rpc.Status.
    """

    def __init__(self, code: grpc.StatusCode, text: str, *details: message.Message) -> None:
        """Creates the error. A text longer than MAX_TEXT_BYTES is cut."""
        self.code = code
        self.text = _cut(text)
        self.details = details
        super().__init__(self.text)

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later without any other change."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

    @property
    def reason(self) -> str:
        """The reason of its ErrorInfo; empty if it has none."""
        infos = (each.reason for each in self.details if isinstance(each, error_details_pb2.ErrorInfo))
        return next(infos, "")

    def status(self) -> status_pb2.Status:
        """Returns the error as a message."""
        packed: list[any_pb2.Any] = []
        for detail in self.details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        return status_pb2.Status(code=self.code.value[0], message=self.text, details=packed)

    @property
    def retry_after(self) -> int | None:
        """Whole seconds after which to retry, as in the Retry-After header; None if there is no RetryInfo."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                return math.ceil(int(detail.retry_delay.ToMilliseconds()) / 1000)
        return None

    @property
    def challenge(self) -> str:
        """How to authenticate, as in the WWW-Authenticate header (RFC 6750, 3); empty if that is not the problem."""
        if self.code is not grpc.StatusCode.UNAUTHENTICATED:
            return ""
        # A request without a token gets no error code.
        return 'Bearer realm="shop"' + (
            ', error="invalid_token"' if self.reason in (TOKEN_INVALID, TOKEN_EXPIRED) else ""
        )

    def trailers(self) -> tuple[tuple[str, bytes | str], ...]:
        """Returns the trailing metadata that carries the details. Envoy's transcoder reads them too.

        If nothing was sent before, they are the headers of the response as well: so REST gets its Retry-After.
        """
        if not self.details:
            return ()
        trailers: list[tuple[str, bytes | str]] = [(DETAILS_KEY, self.status().SerializeToString())]
        if self.retry_after is not None:
            trailers.append((RETRY_AFTER_KEY, str(self.retry_after)))
        if self.challenge:
            trailers.append((CHALLENGE_KEY, self.challenge))
        return tuple(trailers)


_UNESCAPED = string.punctuation.replace("%", "") + " "
_PARTIAL_ESCAPE = re.compile("%.?$")


def _cut(text: str) -> str:
    encoded = quote(text, safe=_UNESCAPED)
    if len(encoded) <= MAX_TEXT_BYTES:
        return text
    kept = _PARTIAL_ESCAPE.sub("", encoded[: MAX_TEXT_BYTES - 3])
    return unquote(kept, errors="ignore") + "..."


def malformed(text: str) -> ApiError:
    """Returns the error for input that is invalid as a whole, so that no field can be named."""
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, text)


def bad_request(violations: Iterable[tuple[str, str]]) -> error_details_pb2.BadRequest:
    """Returns the detail that lists fields. Each violation is a pair of a field path and a description."""
    rows = [error_details_pb2.BadRequest.FieldViolation(field=field, description=text) for field, text in violations]
    return error_details_pb2.BadRequest(field_violations=rows)


def invalid_argument(violations: Iterable[tuple[str, str]]) -> ApiError:
    """Returns the error for invalid fields. It lists the first MAX_VIOLATIONS of the violations (see `bad_request`)."""
    rows = list(violations)
    text = join_first([f"{field}: {description}" for field, description in rows], MAX_VIOLATIONS)
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, text, bad_request(rows[:MAX_VIOLATIONS]))


def with_reason(code: grpc.StatusCode, reason: str, text: str, *details: message.Message, **metadata: str) -> ApiError:
    """Returns an error that programs distinguish from others of the same code by its ErrorInfo reason."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    return ApiError(code, text, info, *details)


def not_found(reason: str, text: str, *details: message.Message, **metadata: str) -> ApiError:
    """Returns an error of code NOT_FOUND (see `with_reason`)."""
    return with_reason(grpc.StatusCode.NOT_FOUND, reason, text, *details, **metadata)


def unauthenticated(reason: str, text: str) -> ApiError:
    """Returns the error for a caller who has not shown who it is (see `with_reason`)."""
    return with_reason(grpc.StatusCode.UNAUTHENTICATED, reason, text)


def permission_denied(reason: str, text: str) -> ApiError:
    """Returns the error for a caller to whom a method is not open (see `with_reason`)."""
    return with_reason(grpc.StatusCode.PERMISSION_DENIED, reason, text)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def unavailable(text: str, retry_after: float = 1.0) -> ApiError:
    """Returns the error for something that is needed and does not respond. `retry_after` is in seconds."""
    return ApiError(grpc.StatusCode.UNAVAILABLE, text, _retry_info(retry_after))


def resource_exhausted(text: str, retry_after: float = 1.0) -> ApiError:
    """Returns the error for a limit that is reached, usually that of waiting calls. `retry_after` is in seconds."""
    return ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, text, _retry_info(retry_after))


def queue_full() -> ApiError:
    """Returns the error for a call that would wait behind too many others."""
    return resource_exhausted("server overloaded: request queue is full")


def database_unavailable() -> ApiError:
    """Returns the error for a database that does not respond."""
    return unavailable("the database is unavailable")


def database_full(text: str) -> ApiError:
    """Returns the error for a database whose disk is full."""
    return with_reason(grpc.StatusCode.RESOURCE_EXHAUSTED, DATABASE_FULL, text, _retry_info(FULL_RETRY_AFTER))


def commits_stalled() -> ApiError:
    """Returns the error for a write to a database whose commits wait for a standby that is away."""
    return database_read_only("the database cannot replicate at present; nothing was written")


def database_read_only(text: str) -> ApiError:
    """Returns the error for a database that accepts no writes for an unknown time, while reads work."""
    return with_reason(grpc.StatusCode.UNAVAILABLE, DATABASE_READ_ONLY, text, _retry_info(READ_ONLY_RETRY_AFTER))


def query_timeout(text: str) -> ApiError:
    """Returns the error for a statement that took too long. It has no RetryInfo: it would take as long again."""
    return with_reason(grpc.StatusCode.DEADLINE_EXCEEDED, QUERY_TIMEOUT, text)


def from_domain(error: DomainError) -> ApiError:
    """Returns an error of a domain as one of the API."""
    code = grpc.StatusCode[error.kind.value]
    details = [bad_request(error.violations[:MAX_VIOLATIONS])] if error.violations else []
    if not error.reason:
        return ApiError(code, error.message, *details)
    return with_reason(code, error.reason, error.message, *details, **error.metadata)


def internal() -> ApiError:
    """Returns the error for a fault of ours. It says nothing about it; the log does."""
    return ApiError(grpc.StatusCode.INTERNAL, "internal error")


def parse_rpc_error(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, status_pb2.Status]:
    """Returns what another service of ours failed with: the code, the ErrorInfo reason (or empty), the whole status."""
    status = status_pb2.Status(code=code_pb2.UNKNOWN)
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
    return error.code(), parse_status(status)[1], status


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def parse_status(status: status_pb2.Status) -> tuple[grpc.StatusCode, str]:
    """Returns the code and the ErrorInfo reason (or empty) of a status, as of one request of a batch."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    return _CODES.get(status.code, grpc.StatusCode.UNKNOWN), info.reason


def known_details(status: status_pb2.Status) -> list[message.Message]:
    """Returns those details of a status that our errors have, to make the same error of them again."""
    details: list[message.Message] = []
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                details.append(detail)
    return details
