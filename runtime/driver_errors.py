"""What an error of the PostgreSQL driver means: for the caller, for its retries, and for the pool's connections.

Each has one of four meanings. A *lost connection* is replaced, and all others of the pool with it. A *lost race* is run
again. An *answer* of the database is told to the caller, once, in our own words. Anything else is a fault of ours: it
is raised as it is, and answered as INTERNAL with a traceback in the log.

Errors are told apart by SQLSTATE, never by their text.
"""

from collections.abc import Callable

import psycopg

from runtime.errors import ApiError, database_full, database_read_only, query_timeout, resource_exhausted, unavailable

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
    """Returns whether a statement failed because its connection broke: others may have broken with it."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state.startswith("08") or state in _SERVER_GONE


def is_race(error: psycopg.Error) -> bool:
    """Returns whether a statement changed nothing because another one was quicker."""
    return error.sqlstate in _RACES


def is_write_refusal(error: psycopg.Error) -> bool:
    """Returns whether the database takes no writes at present, and reads still work."""
    return error.sqlstate in (DISK_FULL, READ_ONLY)


def answer(state: str | None) -> ApiError | None:
    """Returns what the caller is told of an answer of the database by its SQLSTATE; None for anything else."""
    make = _ANSWERS.get(state or "")
    return make() if make else None


HINTS = {
    "26000": "a prepared statement is gone: is there a pooler in transaction mode? Set DATABASE_POOLER_URL",
    "42P05": "a prepared statement is there twice: is there a pooler in transaction mode? Set DATABASE_POOLER_URL",
    "42P01": "has `migrate` run?",
    "42703": "has `migrate` run?",
}
"""What an operator has to do about an answer, by SQLSTATE."""

_TIMEOUT = "the database took too long; nothing was written"

_ANSWERS: dict[str, Callable[[], ApiError]] = {
    # query_canceled: statement_timeout, or an administrator. The edge and our own clients repeat UNAVAILABLE, and what
    # took too long once would then take its time thrice.
    "57014": lambda: query_timeout(_TIMEOUT),
    # transaction_timeout
    "25P04": lambda: query_timeout(_TIMEOUT),
    # idle_in_transaction_session_timeout
    "25P03": lambda: unavailable("the database ended the transaction; nothing was written"),
    # lock_timeout, where the database's own configuration has one
    LOCK_NOT_AVAILABLE: lambda: unavailable("the data is locked by another change; nothing was written"),
    READ_ONLY: lambda: database_read_only("the database is read-only at present; nothing was written"),
    DISK_FULL: lambda: database_full("the database is full; nothing was written"),
    # out_of_memory
    "53200": lambda: resource_exhausted("the database is out of memory; nothing was written"),
    # too_many_connections
    "53300": lambda: resource_exhausted("the database has too many connections; nothing was written"),
    # configuration_limit_exceeded, as temp_file_limit is, and insufficient_resources
    "53400": lambda: resource_exhausted("the database is out of resources; nothing was written"),
    "53000": lambda: resource_exhausted("the database is out of resources; nothing was written"),
    # invalid_sql_statement_name, duplicate_prepared_statement
    "26000": lambda: unavailable("the database is not ready"),
    "42P05": lambda: unavailable("the database is not ready"),
    # undefined_table, undefined_column: the migration has not run yet
    "42P01": lambda: unavailable("the database is not ready"),
    "42703": lambda: unavailable("the database is not ready"),
}
