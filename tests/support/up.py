"""`python -m local` as a child of the tests, which cannot outlive them."""

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from local.children import descendants
from local.settings import REPOSITORY, free_ports

NOBODY = 65534

HOLD_SIGNALS = ("env", "--block-signal=INT,TERM,HUP")
"""How the Makefile starts the shop."""


class Up:
    """A running command of `local`, on free ports."""

    def __init__(
        self,
        state: Path,
        *,
        command: str = "up",
        user: int | None = None,
        python: str = sys.executable,
        **environment: str,
    ) -> None:
        self.ports = free_ports(3)
        names = ("PORT", "PRODUCT_PORT", "ORDER_PORT")
        ports = {name: str(port) for name, port in zip(names, self.ports, strict=True)}
        # Another user may not write into the clone or our home.
        own = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(state)} if user else {}
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", *become(user), "--", *HOLD_SIGNALS, python, "-m", "local", command],
            cwd=REPOSITORY,
            env={**os.environ, **own, **ports, "STATE_DIR": str(state), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_ready(self) -> str:
        """Waits until the shop is ready. Returns its output."""
        return self.until("ready\n")

    def until(self, end: str) -> str:
        """Waits for a line that ends like this. Returns the output until then."""
        assert self.process.stdout
        output = ""
        for line in self.process.stdout:
            output += line
            if line.endswith(end):
                return output
        raise AssertionError(f"it ended: {output}{self.process.stderr and self.process.stderr.read()}")

    def output(self) -> str:
        """Waits until the command succeeds. Returns its output."""
        output, error = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, error
        return output

    def refusal(self) -> str:
        """Waits until the command fails. Returns its error message."""
        _, error = self.process.communicate(timeout=30)
        assert self.process.returncode == 1, error
        return error

    def pids(self) -> list[int]:
        """Returns the ids of all processes that it has started."""
        return descendants(self.process.pid)

    def end(self, number: int) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        """Ends it if it still runs."""
        if self.process.poll() is None:
            try:
                self.end(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                self.end(signal.SIGKILL)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


def python_for(user: int, folder: Path) -> str | None:
    """Returns an interpreter that has the shop's packages and that a user can run, or None.

    It is this interpreter, or the system's one of the same version in an environment made in `folder`. None: the user
    can run neither, or cannot read the clone.
    """
    if _works_for(user, sys.executable):
        return sys.executable
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    if not Path(system).exists():
        return None
    environment = folder / "environment"
    subprocess.run([system, "-m", "venv", "--without-pip", environment], check=True)
    theirs = environment / "lib" / Path(system).name / "site-packages" / "ours.pth"
    # A folder that is only added to the path has no .pth files of its own read, and the project is installed by one.
    theirs.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    python = str(environment / "bin" / "python")
    return python if _works_for(user, python) else None


def _works_for(user: int, python: str) -> bool:
    # Twice: setpriv itself runs its program with what root may do.
    check = ["setpriv", *become(user), "--", "setpriv", "--", python, "-c", "import local.shop"]
    return subprocess.run(check, check=False, cwd=REPOSITORY, capture_output=True).returncode == 0


def become(user: int | None) -> list[str]:
    """Returns the options of setpriv that switch to a user."""
    return [] if user is None else [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
