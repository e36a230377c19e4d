"""Child processes that end with their parent, however it ends, and write their logs to files."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Sleep = Callable[[float], None]
"""Waits some seconds, as `time.sleep` does. It may raise to cancel the wait; the child is then ended."""

CHILD_POLL_INTERVAL = 0.02
"""Seconds between two checks whether a child has ended."""

EXIT_POLL_INTERVAL = 0.1
"""Seconds between two checks whether a process that is not our child has ended."""

LOG_TAIL = 8
"""Lines of a child's log that an error message repeats."""


class ChildError(Exception):
    """A process ended unexpectedly. The message is for people, and has the end of the process's log."""


@dataclass(frozen=True)
class User:
    """The user that a process runs as."""

    uid: int
    gid: int

    @property
    def setpriv_options(self) -> list[str]:
        """The options of setpriv that switch to this user."""
        return [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]


@dataclass(frozen=True)
class Child:
    """A process that this one started."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def failure(self) -> ChildError:
        """Returns the error for a process that has ended."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        tail = "".join(f"\n    {line}" for line in lines)
        return ChildError(f"{self.name} exited with status {self.process.returncode}; its log is {self.log}{tail}")

    def check(self) -> None:
        """Raises ChildError if the process has ended."""
        if self.process.poll() is not None:
            raise self.failure()

    def wait(self, timeout: float, sleep: Sleep = time.sleep) -> bool:
        """Waits up to `timeout` seconds for the process to end. Returns whether it has ended."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                return False
            sleep(CHILD_POLL_INTERVAL)
        return True

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15) -> None:
        """Sends a signal to the process, and kills it if it still runs after `timeout` seconds."""
        stop([self], number, timeout)


def start(
    name: str,
    command: Sequence[str | Path],
    logs: Path,
    environment: Mapping[str, str],
    *,
    death_signal: str = "TERM",
    user: User | None = None,
    folder: Path | None = None,
) -> Child:
    """Starts a process in a session of its own, so that a Ctrl-C in the terminal reaches the parent only.

    Args:
        name: The name for messages, and of the log file.
        command: The program and its arguments.
        logs: The folder of the log file. The log is appended to.
        environment: All environment variables of the process.
        death_signal: What the process receives when its parent dies, as in `TERM`.
        user: The user to run as; the current one by default.
        folder: The working directory; the current one by default.
    """
    log = logs / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *("setpriv", f"--pdeathsig={death_signal}", *(user.setpriv_options if user else ()), "--"),
                *map(str, command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    return Child(name, process, log)


def stop(children: Sequence[Child], number: int = signal.SIGTERM, timeout: float = 15) -> None:
    """Sends a signal to all processes at once, and kills those that still run after `timeout` seconds."""
    for child in children:
        child.process.send_signal(number)
    deadline = time.monotonic() + timeout
    for child in children:
        if not child.wait(deadline - time.monotonic()):
            child.process.kill()
            child.process.wait()


def run(
    name: str,
    command: Sequence[str | Path],
    logs: Path,
    environment: Mapping[str, str],
    timeout: float,
    *,
    user: User | None = None,
    folder: Path | None = None,
    sleep: Sleep = time.sleep,
) -> str:
    """Runs a process until it ends, with the arguments of `start`, and returns its output.

    Raises:
        ChildError: The process failed, or took longer than `timeout` seconds.
    """
    child = start(name, command, logs, environment, user=user, folder=folder)
    before = child.log.stat().st_size
    try:
        if not child.wait(timeout, sleep):
            raise ChildError(f"{name} did not finish within {timeout:g} s; its log is {child.log}")
    finally:
        child.stop(timeout=1)
    if child.process.returncode:
        raise child.failure()
    return child.log.read_bytes()[before:].decode(errors="replace").strip()


def descendants(pid: int) -> list[int]:
    """Returns the ids of all processes that a process started, directly or not."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def wait_for_exit(pid: int, timeout: float, sleep: Sleep = time.sleep) -> bool:
    """Waits up to `timeout` seconds until no process with this id runs. Returns whether it has ended."""
    deadline = time.monotonic() + timeout
    while _is_running(pid):
        if time.monotonic() > deadline:
            return False
        sleep(EXIT_POLL_INTERVAL)
    return True


def _is_running(pid: int) -> bool:
    """Returns whether a process runs. One that has ended, and that its parent has not waited for yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
