"""Conversion of times between rows of PostgreSQL, which have whole microseconds, and messages."""

from datetime import UTC, datetime, timedelta

from google.protobuf import timestamp_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def set_timestamp(field: timestamp_pb2.Timestamp, time: datetime) -> None:
    """Writes a time into a field of a message. Passing a Timestamp to the message's constructor would copy it."""
    since = time - _EPOCH
    field.seconds = since.days * 86_400 + since.seconds
    field.nanos = since.microseconds * 1_000


def microseconds(time: datetime) -> int:
    """Returns the microseconds since 1970, exactly: a rounded page token would skip rows or repeat them."""
    return (time - _EPOCH) // _MICROSECOND


def of_microseconds(since: int) -> datetime:
    """Returns the time that is so many microseconds after 1970: the inverse of `microseconds`.

    Raises:
        OverflowError: The time is out of the range of datetime.
    """
    return _EPOCH + since * _MICROSECOND
