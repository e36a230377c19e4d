"""Load at a fixed concurrency, made by wrk, which costs far less than what it measures."""

import json
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SCRIPT = Path(__file__).with_name("load.lua")
PACED_SCRIPT = Path(__file__).with_name("paced.lua")

Kind = Literal["get", "order", "cancel", "cart", "add", "add-once", "checkout"]


class LoadError(Exception):
    """The load could not be made, or a request failed. The message is for people."""


@dataclass(frozen=True)
class Load:
    """How a system served one round."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_s: float = 0.0
    """CPU seconds of wrk itself."""


def installed() -> str:
    """Returns the path of wrk. Raises LoadError if it is missing."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise LoadError("wrk is missing: apt-get install wrk")
    return wrk


def run(
    url: str, kind: Kind, file: Path, salt: int, *, connections: int, seconds: int, think: float | None = None
) -> Load:
    """Runs one round.

    Args:
        url: The system's address.
        kind: What to do with the lines of the file: see load.lua.
        file: Paths or ids, a line each.
        salt: A number that no other run has. It seeds the choice of lines; `cancel` and `checkout` begin with this
            line.
        connections: Connections that are used at the same time.
        seconds: How long the round takes.
        think: Seconds that a connection pauses before each request: random ones, and this on average.

    Raises:
        LoadError: wrk is missing, or a request failed.
    """
    command = [installed(), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    command += ["-s", str(SCRIPT if think is None else PACED_SCRIPT), url, "--", kind, str(file), str(salt)]
    if think is not None:
        command.append(str(1000 * think))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise LoadError(f"wrk failed: {(done.stderr or done.stdout).strip()}") from None
    if found["refused"] or found["broken"] or not found["requests"]:
        raise LoadError(
            f"{url}: {found['refused']} of {found['requests']} requests failed, {found['broken']} connections broke"
        )
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(found["requests"], found["requests"] / found["seconds"], found["p50_ms"], found["p99_ms"], cpu)
