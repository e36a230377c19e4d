"""Errors as clients see them: google.rpc.Status with standard details (AIP-193)."""

import math
import string
from collections.abc import Iterable, Sequence
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from runtime.refusals import DomainError

DOMAIN = "shop"
"""The `domain` of every ErrorInfo."""

DETAILS_KEY = "grpc-status-details-bin"

DATABASE_FULL = "DATABASE_FULL"
"""ErrorInfo reason of what a full disk refuses."""

DATABASE_READ_ONLY = "DATABASE_READ_ONLY"
"""ErrorInfo reason of a write to a database that takes none."""

READ_ONLY_RETRY_AFTER = 5.0
"""Seconds after which such a write may be tried again."""

QUERY_TIMEOUT = "QUERY_TIMEOUT"
"""ErrorInfo reason of a statement that took too long; the caller's own deadline has none."""

FULL_RETRY_AFTER = 30.0
"""Seconds after which a call that a full disk refused may be tried again: somebody has to make room first."""
RETRY_AFTER_KEY = "retry-after"

LONGEST_TEXT = 2_000
"""Bytes of an error's text as grpc sends it, in percent-encoding. It is sent twice, as the message and in the details,
and all of a call's trailers must stay below 8 KiB: clients get RESOURCE_EXHAUSTED instead of what is longer."""

MOST_VIOLATIONS = 10
"""So many field violations are named."""


class ApiError(Exception):
    """A failure that a client may see. Nothing in it comes from a driver or an exception's name."""

    def __init__(self, code: grpc.StatusCode, text: str, *details: message.Message) -> None:
        """A text that is too long to be sent is cut."""
        self.code = code
        self.text = _short(text)
        self.details = details
        super().__init__(self.text)

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later though nothing else changes."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

    @property
    def reason(self) -> str:
        """The reason of its ErrorInfo; empty where it has none."""
        infos = (each.reason for each in self.details if isinstance(each, error_details_pb2.ErrorInfo))
        return next(infos, "")

    def status(self) -> status_pb2.Status:
        packed = []
        for detail in self.details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        return status_pb2.Status(code=self.code.value[0], message=self.text, details=packed)

    @property
    def retry_after(self) -> int | None:
        """Whole seconds after which to try again, as in the Retry-After header; None without RetryInfo."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                return math.ceil(int(detail.retry_delay.ToMilliseconds()) / 1000)
        return None

    def trailers(self) -> tuple[tuple[str, bytes | str], ...]:
        """The trailing metadata that carries the details, which Envoy's transcoder reads too.

        Where nothing was sent before, it is the header of the answer as well: that is how REST gets its Retry-After.
        """
        if not self.details:
            return ()
        details = (DETAILS_KEY, self.status().SerializeToString())
        return (details,) if self.retry_after is None else (details, (RETRY_AFTER_KEY, str(self.retry_after)))


_AS_IT_IS = string.punctuation.replace("%", "") + " "


def _short(text: str) -> str:
    if len(quote(text, safe=_AS_IT_IS)) <= LONGEST_TEXT:
        return text
    kept = text
    while len(quote(kept, safe=_AS_IT_IS)) > LONGEST_TEXT - 3:
        kept = kept[: len(kept) * 9 // 10]
    return f"{kept}..."


def enumerated(texts: Sequence[str], most: int) -> str:
    """The first of them, and how many more there are."""
    more = len(texts) - most
    return "; ".join(texts[:most]) + (f"; and {more} more" if more > 0 else "")


def malformed(text: str) -> ApiError:
    """Input of which no field can be named."""
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, text)


def bad_request(violations: Iterable[tuple[str, str]]) -> error_details_pb2.BadRequest:
    """The detail that names fields. Each violation is (field path, what is wrong with it)."""
    rows = [error_details_pb2.BadRequest.FieldViolation(field=field, description=text) for field, text in violations]
    return error_details_pb2.BadRequest(field_violations=rows)


def invalid_argument(violations: Iterable[tuple[str, str]]) -> ApiError:
    """Malformed input, with each violation as in `bad_request`; of many, the first are named."""
    rows = list(violations)
    text = enumerated([f"{field}: {description}" for field, description in rows], MOST_VIOLATIONS)
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, text, bad_request(rows[:MOST_VIOLATIONS]))


def with_reason(code: grpc.StatusCode, reason: str, text: str, *details: message.Message, **metadata: str) -> ApiError:
    """An error that a program can tell from others of the same code by its ErrorInfo reason."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    return ApiError(code, text, info, *details)


def not_found(reason: str, text: str, *details: message.Message, **metadata: str) -> ApiError:
    return with_reason(grpc.StatusCode.NOT_FOUND, reason, text, *details, **metadata)


def failed_precondition(reason: str, text: str, **metadata: str) -> ApiError:
    return with_reason(grpc.StatusCode.FAILED_PRECONDITION, reason, text, **metadata)


def already_exists(reason: str, text: str, **metadata: str) -> ApiError:
    return with_reason(grpc.StatusCode.ALREADY_EXISTS, reason, text, **metadata)


def aborted(reason: str, text: str, **metadata: str) -> ApiError:
    return with_reason(grpc.StatusCode.ABORTED, reason, text, **metadata)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def unavailable(text: str, retry_after: float = 1.0) -> ApiError:
    """Something needed does not answer. `retry_after` is in seconds."""
    return ApiError(grpc.StatusCode.UNAVAILABLE, text, _retry_info(retry_after))


def resource_exhausted(text: str, retry_after: float = 1.0) -> ApiError:
    """Something is used up, as a rule because too much waits already. `retry_after` is in seconds."""
    return ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, text, _retry_info(retry_after))


def database_full(text: str) -> ApiError:
    """A database has no room on its disk."""
    return with_reason(grpc.StatusCode.RESOURCE_EXHAUSTED, DATABASE_FULL, text, _retry_info(FULL_RETRY_AFTER))


def database_read_only(text: str) -> ApiError:
    """A database takes no writes, and nobody knows for how long. Reads work."""
    return with_reason(grpc.StatusCode.UNAVAILABLE, DATABASE_READ_ONLY, text, _retry_info(READ_ONLY_RETRY_AFTER))


def query_timeout(text: str) -> ApiError:
    """A statement took as long as it may. No RetryInfo: it would take as long again."""
    return with_reason(grpc.StatusCode.DEADLINE_EXCEEDED, QUERY_TIMEOUT, text)


def from_domain(error: DomainError) -> ApiError:
    """Translates an error of a domain."""
    code = grpc.StatusCode[error.kind.value]
    details = [bad_request(error.violations)] if error.violations else []
    if not error.reason:
        return ApiError(code, error.message, *details)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    return ApiError(code, error.message, info, *details)


def internal() -> ApiError:
    return ApiError(grpc.StatusCode.INTERNAL, "internal error")


def parse_rpc_error(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, status_pb2.Status]:
    """What another service of ours answered: code, ErrorInfo reason (or empty), whole status."""
    status = status_pb2.Status(code=code_pb2.UNKNOWN)
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
    return error.code(), of_status(status)[1], status


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def of_status(status: status_pb2.Status) -> tuple[grpc.StatusCode, str]:
    """The code and the ErrorInfo reason (or empty) of what was answered to one request of a batch."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    return _CODES.get(status.code, grpc.StatusCode.UNKNOWN), info.reason
