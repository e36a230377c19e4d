"""What an error of the PostgreSQL driver means for the caller, for retries and for the connections of the pool.

There are four kinds. After a *lost connection*, all connections of the pool are replaced. A *lost race* is retried. A
*refusal* of the database is reported to the caller, in our own words. Any other error is a fault of ours: it is raised
as it is, and the caller gets INTERNAL while the log gets a traceback.

Errors are distinguished by SQLSTATE, never by their text.
"""

from collections.abc import Callable

import psycopg

from runtime.errors import (
    ApiError,
    database_full,
    database_read_only,
    query_timeout,
    resource_exhausted,
    unavailable,
)

DISK_FULL = "53100"
READ_ONLY = "25006"
LOCK_NOT_AVAILABLE = "55P03"

_SERVER_GONE = {
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "57P04",  # database_dropped
    "57P05",  # idle_session_timeout
}

_RACES = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
}


def is_connection_lost(error: psycopg.Error) -> bool:
    """Returns whether a statement failed because its connection broke. Others may have broken as well."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state.startswith("08") or state in _SERVER_GONE


def is_race(error: psycopg.Error) -> bool:
    """Returns whether a statement changed nothing because a concurrent one came first."""
    return error.sqlstate in _RACES


def is_write_refusal(error: psycopg.Error) -> bool:
    """Returns whether the database accepts no writes at present, while reads still work."""
    return error.sqlstate in (DISK_FULL, READ_ONLY)


def may_come_from_standby(error: psycopg.Error) -> bool:
    """Returns whether a statement may have failed because its server is a standby.

    A write is refused as READ_ONLY there. Some functions of the log (the WAL) have other errors, even internal ones.
    """
    if is_connection_lost(error) or is_race(error) or isinstance(error, psycopg.IntegrityError):
        return False
    return error.sqlstate == READ_ONLY or error.sqlstate not in _REFUSALS


CONSTRAINT = "constraint"

KINDS = ("connection_lost", "race", "timeout", "read_only", "full", CONSTRAINT, "other")
"""What `kind` returns."""

_KINDS = {"57014": "timeout", "25P04": "timeout", READ_ONLY: "read_only", DISK_FULL: "full"}


def kind(error: psycopg.Error) -> str:
    """Returns in one word what an error is, for metrics. IntegrityErrors are CONSTRAINT; they do not come here."""
    if is_race(error):
        return "race"
    if is_connection_lost(error):
        return "connection_lost"
    return _KINDS.get(error.sqlstate or "", "other")


def to_api_error(sqlstate: str | None) -> ApiError | None:
    """Returns what the caller gets if the database refuses a statement; None for any other error."""
    make = _REFUSALS.get(sqlstate or "")
    return make() if make else None


HINTS = {
    "26000": "a prepared statement is missing: is there a pooler in transaction mode? Set DATABASE_POOLER_URL",
    "42P05": "a prepared statement exists already: is there a pooler in transaction mode? Set DATABASE_POOLER_URL",
    "42P01": "has `migrate` run?",
    "42703": "has `migrate` run?",
}
"""What an operator can do about a refusal, by SQLSTATE."""

_TIMEOUT = "database timeout; nothing was written"
_NOT_READY = "the database is not ready"

_REFUSALS: dict[str, Callable[[], ApiError]] = {
    # query_canceled: by statement_timeout, or by an administrator. Not UNAVAILABLE: the edge and our own clients retry
    # that, so a slow statement would run three times.
    "57014": lambda: query_timeout(_TIMEOUT),
    # transaction_timeout
    "25P04": lambda: query_timeout(_TIMEOUT),
    # idle_in_transaction_session_timeout
    "25P03": lambda: unavailable("the database ended the transaction; nothing was written"),
    # lock_timeout, if the configuration of the database sets one
    LOCK_NOT_AVAILABLE: lambda: unavailable("the data is locked by another change; nothing was written"),
    READ_ONLY: lambda: database_read_only("the database is read-only at present; nothing was written"),
    DISK_FULL: lambda: database_full("the database is full; nothing was written"),
    # out_of_memory
    "53200": lambda: resource_exhausted("the database is out of memory; nothing was written"),
    # too_many_connections
    "53300": lambda: resource_exhausted("the database has too many connections; nothing was written"),
    # configuration_limit_exceeded (as temp_file_limit) and insufficient_resources
    "53400": lambda: resource_exhausted("the database is out of resources; nothing was written"),
    "53000": lambda: resource_exhausted("the database is out of resources; nothing was written"),
    # invalid_sql_statement_name, duplicate_prepared_statement
    "26000": lambda: unavailable(_NOT_READY),
    "42P05": lambda: unavailable(_NOT_READY),
    # undefined_table, undefined_column: the migration has not run yet
    "42P01": lambda: unavailable(_NOT_READY),
    "42703": lambda: unavailable(_NOT_READY),
}
