"""Ctrl-C and other signals that stop the shop.

A signal handler only takes note of the signal. The signal has its effect where the shop waits: an exception out of a
handler could interrupt a library that holds a lock.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress
from threading import Thread

from local.children import descendants

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

KILL_AFTER = 4.2
"""Seconds from a signal until whatever still runs is killed."""


def restore_default_signals() -> None:
    """Lets signals end the process at once, for a command that has no other process to stop first."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class Stopped(BaseException):
    """The shop has to stop. Only `Stop.sleep` raises this, after a signal or when the terminal is closed."""


class Stop:
    """Waits until the shop has to stop: for a signal, or for its terminal to be closed."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poller = select.poll()
        self._poller.register(self._read, select.POLLIN)

    def listen(self) -> None:
        """Starts to listen. Signals that were blocked until now take effect."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the thread must not receive them
        Thread(target=self._enforce, daemon=True).start()
        # Python writes to it at once, whatever the main thread is doing.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        handled = {signal.SIGINT, signal.SIGTERM}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it, so that the shop goes on
            handled.add(signal.SIGHUP)
            self._watch_terminal()
        for number in handled:
            signal.signal(number, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def sleep(self, seconds: float) -> None:
        """Waits. Raises Stopped as soon as the shop has to stop."""
        if self._poller.poll(seconds * 1000):
            with suppress(BlockingIOError):
                os.write(self._write, b".")  # if it was the terminal, the thread does not know yet
            raise Stopped

    def _watch_terminal(self) -> None:
        """Watches the terminal: a closed one signals only the first process of its session, which may be make."""
        with suppress(OSError):
            self._poller.register(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC), 0)

    def _enforce(self) -> None:
        """Kills what still runs KILL_AFTER seconds after a signal. Runs in a thread, as the main one may be stuck."""
        select.select([self._read], [], [])
        time.sleep(KILL_AFTER)
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            print(f"shop: killed the processes that did not stop within {KILL_AFTER:g} s", file=sys.stderr, flush=True)
        os._exit(1)
