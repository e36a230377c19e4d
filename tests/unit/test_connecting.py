"""Connecting to a database that may move: no attempt holds up the next one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import psycopg
import pytest
from psycopg import AsyncConnection

from runtime import connecting
from runtime.connecting import connect

Attempt = Callable[..., Coroutine[Any, Any, AsyncConnection[Any]]]


class Attempts:
    """Attempts with given outcomes: a connection, an error, or no answer."""

    def __init__(self, *outcomes: object) -> None:
        self._outcomes = list(outcomes)
        self.cancelled = 0
        self.made = 0
        self.parameters: list[dict[str, str]] = []

    async def __call__(self, **parameters: str) -> Any:
        self.made += 1
        self.parameters.append(parameters)
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        return outcome


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "ATTEMPT_INTERVAL", 0.05)
    monkeypatch.setattr(connecting, "RETRY_PAUSES", (0.001, 0.01))


async def outcome_of(attempts: Attempts, timeout: float = 2) -> object:
    return await connect(cast("Attempt", attempts), timeout)


async def test_attempt_without_answer_does_not_hold_up_next() -> None:
    attempts = Attempts(None, None, "connection")
    assert await outcome_of(attempts) == "connection"
    assert (attempts.made, attempts.cancelled) == (3, 2)


async def test_later_attempts_do_not_all_begin_with_same_address() -> None:
    """The first address of a name may be that of a host that has vanished."""
    attempts = Attempts(None, None, "connection")
    await outcome_of(attempts)
    assert attempts.parameters == [{}, *[{"load_balance_hosts": "random"}] * 2]


async def test_refused_connection_is_tried_again() -> None:
    refused = psycopg.OperationalError("connection refused")
    attempts = Attempts(refused, refused, "connection")
    assert await outcome_of(attempts) == "connection"


async def test_last_error_is_raised_after_the_timeout() -> None:
    failures: list[Exception] = []
    with pytest.raises(psycopg.OperationalError, match="in hot standby mode"):
        await connect(cast("Attempt", Attempts(psycopg.OperationalError("in hot standby mode"))), 0.05, failures.append)
    assert len(failures) > 1


async def test_silence_is_a_timeout() -> None:
    attempts = Attempts(None)
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        await outcome_of(attempts, 0.12)
    assert attempts.cancelled == attempts.made > 1


async def test_refused_login_is_not_tried_again() -> None:
    attempts = Attempts(psycopg.OperationalError("password authentication failed for user x"))
    with pytest.raises(psycopg.OperationalError):
        await outcome_of(attempts)
    assert attempts.made == 1


async def test_cancelled_caller_leaves_no_attempt() -> None:
    attempts = Attempts(None)
    waiting = asyncio.create_task(outcome_of(attempts))
    await asyncio.sleep(0.12)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert attempts.cancelled == attempts.made


async def test_attempts_end_when_no_connection_is_wanted() -> None:
    closing = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, closing.set)
    start = asyncio.get_running_loop().time()
    with pytest.raises(psycopg.OperationalError):
        await connect(cast("Attempt", Attempts(None, None, None)), 5, closing=closing)
    assert asyncio.get_running_loop().time() - start < 1
    with pytest.raises(psycopg.OperationalError):
        await connect(cast("Attempt", Attempts(None)), 5, closing=closing)
