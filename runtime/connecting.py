"""Connecting to a PostgreSQL that may be moving to another server.

A connection attempt stays with the server that it was sent to. If that server has vanished, no answer comes, although
the same name leads to another server meanwhile. So an attempt without an answer does not hold up the next one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import ConnectionTimeout

from runtime.backoff import Backoff
from runtime.credentials import is_login_refused

C = TypeVar("C", bound=AsyncConnection[Any])

CONNECT_TIMEOUT = 4.0
"""Seconds for which `connect` tries."""

ATTEMPT_INTERVAL = 1.0
"""Seconds after which another attempt starts beside one that has no answer yet."""

RETRY_PAUSES = (0.05, 0.4)
"""The first and the longest pause after an attempt that failed at once, in seconds."""


_RANDOM_SEQUENCE: Mapping[str, str] = {"load_balance_hosts": "random"}
"""Of several addresses of a name, the first may be the one that does not respond. Later attempts start elsewhere."""


async def connect(
    attempt: Callable[..., Coroutine[Any, Any, C]],
    timeout: float = CONNECT_TIMEOUT,
    on_failure: Callable[[Exception], object] = lambda error: None,
    closing: asyncio.Event | None = None,
) -> C:
    """Returns the first connection of several attempts.

    Args:
        attempt: Connects once, with further parameters of the connection by name.
        timeout: Seconds for which to try. A refused login is not tried again: the credentials are the same.
        on_failure: Is told of each attempt that failed.
        closing: Is set when no connection is wanted any more.

    Raises:
        psycopg.OperationalError: No attempt succeeded in time, or none is wanted any more.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    backoff = Backoff(*RETRY_PAUSES)
    pending: set[asyncio.Task[C]] = set()
    next_attempt = clock()
    parameters: Mapping[str, str] = {}
    failure: psycopg.OperationalError = ConnectionTimeout("connection timeout expired")
    end = asyncio.create_task((closing or asyncio.Event()).wait())
    try:
        while True:
            if clock() >= next_attempt:
                pending.add(asyncio.create_task(attempt(**parameters)))
                parameters = _RANDOM_SEQUENCE
                next_attempt = clock() + ATTEMPT_INTERVAL
            pause = max(min(next_attempt, deadline) - clock(), 0)
            await asyncio.wait({*pending, end}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in pending if each.done()]:
                error = task.exception()
                pending.discard(task)
                if error is None:
                    return task.result()
                if not isinstance(error, psycopg.OperationalError) or is_login_refused(error):
                    raise error
                failure = error
                on_failure(error)
                next_attempt = min(next_attempt, clock() + backoff.next())
            if end.done() or clock() >= deadline:
                raise failure
    finally:
        end.cancel()
        await _abandon(pending)


async def _abandon(attempts: "set[asyncio.Task[C]]") -> None:
    """Ends attempts, and closes those that have connected meanwhile."""
    for task in attempts:
        task.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(outcome, AsyncConnection):
            await outcome.close()
