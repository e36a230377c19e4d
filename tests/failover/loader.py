"""Starts the load in a pod of the cluster, where it reaches the edge by its Service, and tells it what to do."""

import base64
import io
import json
import selectors
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from local.settings import REPOSITORY
from tests.support.kube import CommandFailed, eventually
from tests.support.release import Release

SOURCE = Path(__file__).parent / "load"
NAME = "failover-load"
UNPACK = """
import base64, io, time, zipfile
zipfile.ZipFile(io.BytesIO(base64.b64decode(open("/files/source").read()))).extractall("/tmp/source")
print("ready", flush=True)
time.sleep(86400)
"""


class Load:
    """The process in the pod. `tests/failover/load/__main__.py` has the commands."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._is_late = False
        """Whether a response may still come, which would be taken for that to another command."""

    def ask(self, *command: object, timeout: float = 60) -> dict[str, Any]:
        """Sends a command, and returns the response. Raises CommandFailed if none comes within `timeout` seconds."""
        if self._is_late:
            raise CommandFailed("the load did not respond to an earlier command")
        self._stdin.write(json.dumps(command) + "\n")
        self._stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            line = self._stdout.readline() if selector.select(timeout) else ""
        if not line:
            self._is_late = True
            raise CommandFailed(f"the load does not respond to {command[0]}")
        response: dict[str, Any] = json.loads(line)
        return response


@contextmanager
def load(release: Release) -> Iterator[Load]:
    """Runs the load until the end of the block."""
    place = release.namespace
    place.pod(NAME, release.image, ["python", "-c", UNPACK], files={"source": _packed()})
    try:
        eventually(lambda: "ready" in place.logs(NAME), 90, "the pod of the load has started")
        command = ["kubectl", "--namespace", place.name, "exec", "--stdin", NAME, "--", "env", "PYTHONPATH=/tmp/source"]
        with subprocess.Popen(
            [*command, "python", "-m", "tests.failover.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin
            assert process.stdout
            try:
                yield Load(process.stdin, process.stdout)
            finally:
                process.terminate()
    finally:
        place.remove(NAME)


def _packed() -> str:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(SOURCE.glob("*.py")):
            archive.write(file, file.relative_to(REPOSITORY))
    return base64.b64encode(packed.getvalue()).decode()
