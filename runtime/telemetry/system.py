"""What a process uses of its machine: processors, memory, files."""

import os
import time
from pathlib import Path

from runtime.telemetry.metrics import Metrics

_PROC = Path("/proc/self")
"""Linux alone has it. Elsewhere the memory and the files are not measured."""


def measure_process(metrics: Metrics) -> None:
    """Registers the metrics of the process. They count from now."""
    start = time.monotonic()
    metrics.counter("process.cpu.time", _cpu_time, "CPU time that the process used.", unit="s", labels=["cpu.mode"])
    metrics.gauge("process.memory.usage", _memory, "Memory of the process that is in RAM.", unit="By")
    metrics.gauge(
        "process.open_file_descriptor.count",
        _open_files,
        "Files and connections that the process has open.",
        unit="{file_descriptor}",
    )
    metrics.gauge("process.uptime", lambda: time.monotonic() - start, "Time since the process started.", unit="s")


def _cpu_time() -> dict[str, float]:
    times = os.times()
    return {"user": times.user, "system": times.system}


def _memory() -> int | None:
    try:
        # See proc_pid_statm(5): the second number is the resident set, in pages.
        return int((_PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _open_files() -> int | None:
    try:
        return len(os.listdir(_PROC / "fd")) - 1  # without the folder itself, which is being read
    except OSError:
        return None
