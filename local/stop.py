"""Ctrl-C and its like. A signal is noted and nothing more; it takes effect where the shop waits, which is what keeps it
from striking within a library that holds a lock."""

import os
import select
import signal
import sys
import time
from contextlib import suppress
from threading import Thread

from local.children import below

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

STOP_WITHIN = 4.2
"""Seconds after which whatever has not ended in an orderly way is killed."""


def end_at_signals() -> None:
    """A signal just ends the process, for a command that has nothing to end before."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class Stopped(BaseException):
    """Somebody asked the shop to end. Raised by `Stop.sleep` alone."""


class Stop:
    """Waits for somebody to ask the shop to end: by a signal, or by closing its terminal."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def listen(self) -> None:
        """Begins. Signals that were blocked until now count."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the thread below gets none
        Thread(target=self._enforce, daemon=True).start()
        # Written to at once, whatever the main thread is in the middle of.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        told = {signal.SIGINT, signal.SIGTERM}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # or nohup wants it to go on
            told.add(signal.SIGHUP)
            self._watch_terminal()
        for number in told:
            signal.signal(number, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def sleep(self, seconds: float) -> None:
        """Waits. Raises Stopped as soon as somebody asks the shop to end."""
        if self._poll.poll(seconds * 1000):
            with suppress(BlockingIOError):
                os.write(self._write, b".")  # it may have been the terminal, which the thread knows nothing of
            raise Stopped

    def _watch_terminal(self) -> None:
        """A terminal that goes tells the first process of its session alone, as make is where a terminal runs it."""
        with suppress(OSError):
            self._poll.register(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC), 0)

    def _enforce(self) -> None:
        """Keeps the promise if the shop does not: of a thread, since it is the main one that may be stuck."""
        select.select([self._read], [], [])
        time.sleep(STOP_WITHIN)
        for pid in below(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            print(f"shop: killed what did not end within {STOP_WITHIN:g} s", file=sys.stderr, flush=True)
        os._exit(1)
