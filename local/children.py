"""Child processes that end with their parent, whatever ends it, and write their logs to files."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Sleep = Callable[[float], None]
"""Waits some seconds, as `time.sleep` does. It may raise: the wait is broken off then, and the child ended."""

INTERVAL = 0.02
"""Seconds between two looks at a child."""


class ChildError(Exception):
    """A process ended that should not have; the message is for people, with the end of its log."""


@dataclass(frozen=True)
class Child:
    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def failure(self) -> ChildError:
        lines = self.log.read_text(errors="replace").splitlines()[-8:]
        tail = "".join(f"\n    {line}" for line in lines)
        return ChildError(f"{self.name} ended with status {self.process.returncode}; its log is {self.log}{tail}")

    def check(self) -> None:
        """Raises ChildError if the process is gone."""
        if self.process.poll() is not None:
            raise self.failure()

    def wait(self, timeout: float, sleep: Sleep = time.sleep) -> bool:
        """Waits for the end of the process, and returns whether it has ended."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                return False
            sleep(INTERVAL)
        return True

    def stop(self, number: int = signal.SIGTERM, patience: float = 15) -> None:
        """Asks the process to end; kills it after `patience` seconds."""
        stop([self], number, patience)


def start(
    name: str,
    command: Sequence[str | Path],
    logs: Path,
    environment: Mapping[str, str],
    *,
    death_signal: str = "TERM",
    user: int | None = None,
    group: int | None = None,
    folder: Path | None = None,
) -> Child:
    """Starts a process in a session of its own, so that a Ctrl-C of the terminal reaches the parent alone."""
    log = logs / f"{name}.log"
    become = [] if user is None else [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", f"--pdeathsig={death_signal}", *become, "--", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    return Child(name, process, log)


def stop(children: Sequence[Child], number: int = signal.SIGTERM, patience: float = 15) -> None:
    """Asks processes to end, all at once; kills those that are left after `patience` seconds."""
    for child in children:
        child.process.send_signal(number)
    deadline = time.monotonic() + patience
    for child in children:
        if not child.wait(deadline - time.monotonic()):
            child.process.kill()
            child.process.wait()


def run(
    name: str,
    command: Sequence[str | Path],
    logs: Path,
    environment: Mapping[str, str],
    patience: float,
    *,
    user: int | None = None,
    group: int | None = None,
    folder: Path | None = None,
    sleep: Sleep = time.sleep,
) -> str:
    """Runs a process to its end and answers what it printed. Raises ChildError if it fails or takes too long."""
    child = start(name, command, logs, environment, user=user, group=group, folder=folder)
    before = child.log.stat().st_size
    try:
        if not child.wait(patience, sleep):
            raise ChildError(f"{name} took longer than {patience:g} s; its log is {child.log}")
    finally:
        child.stop(patience=1)
    if child.process.returncode:
        raise child.failure()
    return child.log.read_bytes()[before:].decode(errors="replace").strip()


def below(pid: int) -> list[int]:
    """Every process below one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def gone(pid: int, patience: float, sleep: Sleep = time.sleep) -> bool:
    """Waits until no process with this id runs."""
    give_up = time.monotonic() + patience
    while _runs(pid):
        if time.monotonic() > give_up:
            return False
        sleep(0.1)
    return True


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it has more to come than that its parent takes note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
