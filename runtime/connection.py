"""A connection to PostgreSQL whose statements can outlive their callers, but not a server that is gone.

By default psycopg cancels a statement in the database as soon as its caller is cancelled, which costs the server a
connection. Nearly all statements end sooner by themselves, so they may go on for a while without their caller.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import PQGen
from psycopg.errors import Diagnostic
from psycopg.waiting import wait_async

from runtime import connecting

log = logging.getLogger(__name__)

Result = TypeVar("Result")

INTERRUPT_POLL_INTERVAL = 0.1
"""Seconds between two checks for an interrupt: the driver's own default."""


class Connection(AsyncConnection[Any]):
    """A connection whose running statement can be left to another task."""

    generation = 0
    """How often the pool had replaced all its connections when it got this one."""
    check_time = 0.0
    """When to check again whether its server is a replica that is up to date; by the clock of the event loop."""
    recycle_time = 0.0
    """When to return it to the driver's pool, which may replace it; by the clock of the event loop."""
    is_unreplicated = False
    """Whether the wait of a commit for a standby was cancelled, as an administrator may do."""
    server = ""
    """Which run of which server it leads to; empty if that is unknown, as behind a pooler."""
    keep_running_on_cancel = False
    """Whether a statement goes on, as `abandoned`, if its caller is cancelled. By default the driver cancels it in the
    database at once."""
    abandoned: PQGen[Any] | None = None
    """The statement that goes on without a caller. Nothing else may run until `finish_abandoned` has returned."""

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connects as the base class does, but makes several attempts (see `runtime.connecting`).

        `closing` is an event: when it is set, no connection is wanted any more.
        """
        closing: asyncio.Event | None = kwargs.pop("closing", None)
        connection = await connecting.connect(partial(super().connect, conninfo, **kwargs), closing=closing)
        connection.add_notice_handler(connection.note_notice)
        return connection

    def note_notice(self, notice: Diagnostic) -> None:
        """Notes a commit that no longer waits for a standby. PostgreSQL warns of it, and reports success."""
        if notice.source_function == "SyncRepWaitForLSN":
            self.is_unreplicated = True

    async def wait(
        self, gen: PQGen[Result], interval: float = INTERRUPT_POLL_INTERVAL, timeout: float | None = None
    ) -> Result:
        """Runs a generator of the driver, as in the base class. If cancelled, it may leave it in `abandoned`."""
        if not self.keep_running_on_cancel:
            return await super().wait(gen, interval, timeout)
        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            self.abandoned = gen
            raise

    async def finish_abandoned(self, timeout: float) -> None:
        """Waits for the abandoned statement, and cancels it in the database after `timeout` seconds.

        Its outcome is dropped.
        """
        gen, self.abandoned, self.keep_running_on_cancel = self.abandoned, None, False
        assert gen is not None
        with suppress(TimeoutError, psycopg.Error):
            async with asyncio.timeout(timeout):
                await self.wait(gen)


def cut(connection: AsyncConnection[Any]) -> None:
    """Shuts down the socket of a connection: whatever waits for it fails with an OperationalError.

    If the server is gone without having closed the connection, a statement would wait forever. Cancelling it does not
    help: the driver asks the server to end it first, over the same dead path.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        log.warning("the database does not respond: closing the connection")
        duplicate.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_after(connection: AsyncConnection[Any], timeout: float) -> Generator[None]:
    """Cuts a connection if the block takes longer than `timeout` seconds."""
    timer = asyncio.get_running_loop().call_later(timeout, cut, connection)
    try:
        yield
    finally:
        timer.cancel()
