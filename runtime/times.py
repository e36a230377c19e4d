"""Times between PostgreSQL's rows and messages. PostgreSQL keeps whole microseconds."""

from datetime import UTC, datetime, timedelta

from google.protobuf import timestamp_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def set_timestamp(field: timestamp_pb2.Timestamp, time: datetime) -> None:
    """Writes a time into a message's field, where it belongs: a constructor would copy it."""
    since = time - _EPOCH
    field.seconds = since.days * 86_400 + since.seconds
    field.nanos = since.microseconds * 1_000


def microseconds(time: datetime) -> int:
    """Microseconds since 1970, exactly: a page token that rounded would skip rows or show them twice."""
    return (time - _EPOCH) // _MICROSECOND


def of_microseconds(since: int) -> datetime:
    """The inverse of `microseconds`; OverflowError where no time is so far away."""
    return _EPOCH + since * _MICROSECOND
