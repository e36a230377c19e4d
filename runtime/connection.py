"""One connection to PostgreSQL: what runs on it can outlive its caller, but not a server that is gone."""

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import PQGen
from psycopg.waiting import wait_async

log = logging.getLogger(__name__)

Result = TypeVar("Result")

INTERRUPTS = 0.1
"""Seconds between two looks for an interrupt: the driver's own default."""


class Connection(AsyncConnection[Any]):
    """A connection whose statements may be left to somebody else."""

    generation = 0
    """How often the pool had replaced all of its connections when it got this one."""
    return_time = 0.0
    """When the driver's pool is to see it again, by the loop's clock."""
    leaves_unfinished = False
    """Whether a caller who is cancelled leaves what runs to `unfinished`. By default, the driver cancels it in the
    database at once."""
    unfinished: PQGen[Any] | None = None
    """What runs without a caller. Nothing else may run until `end` has returned."""

    async def wait(self, gen: PQGen[Result], interval: float = INTERRUPTS, timeout: float | None = None) -> Result:
        if not self.leaves_unfinished:
            return await super().wait(gen, interval, timeout)
        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            self.unfinished = gen
            raise

    async def end(self, seconds: float) -> None:
        """Waits until what is unfinished has ended, and cancels it in the database after so many seconds. Nobody asks
        for its outcome."""
        gen, self.unfinished, self.leaves_unfinished = self.unfinished, None, False
        assert gen is not None
        with suppress(TimeoutError, psycopg.Error):
            async with asyncio.timeout(seconds):
                await self.wait(gen)


def cut(connection: AsyncConnection[Any]) -> None:
    """Ends a connection, whatever the server does: what waits for it fails with an OperationalError.

    Where the other end is gone without a word, a statement waits for ever. To cancel it is no way out: the driver has
    the server end it first, over the same dead path.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        log.warning("the database does not answer: cutting the connection")
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering(connection: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cuts the connection if the block takes longer."""
    timer = asyncio.get_running_loop().call_later(seconds, cut, connection)
    try:
        yield
    finally:
        timer.cancel()
