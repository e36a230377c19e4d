"""An event that one task waits for. Anything can wake it; closing it ends the wait with an error."""

import asyncio


class Wakeup:
    """Wakes the one task that waits for it.

    An `asyncio.Event` for a single waiter: it keeps no queue of waiters, and resets itself. An idle stream is parked on
    one of these, so its size counts.
    """

    __slots__ = ("_awake", "_error", "_waiter")

    def __init__(self) -> None:
        self._awake = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Ends the current wait, or the next one if nobody waits."""
        self._awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self, error: Exception) -> None:
        """Ends the current wait and every later one with `error`."""
        self._error = error
        self.wake()

    async def wait(self) -> None:
        """Returns when it was woken since the last call.

        Raises:
            Exception: The error that it was closed with.
        """
        if not self._awake and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._awake = False
        if self._error is not None:
            # Many waiters share the error. With its traceback, each would keep the frames of the others alive.
            raise self._error.with_traceback(None)
