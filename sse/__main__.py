"""The sidecar's command."""

import logging
import os
import resource
import sys

from runtime.config import Env, TelemetryConfig
from runtime.process import main
from runtime.server import until_stopped
from runtime.telemetry import Telemetry
from sse.config import SidecarConfig
from sse.sidecar import Sidecar

log = logging.getLogger(__name__)

SPARE_FILES = 200
"""Open files beside the streams."""


async def run() -> None:
    env = Env(os.environ)
    config = SidecarConfig.from_env(env)
    allow_open_files(config.limits.streams + SPARE_FILES)
    telemetry = Telemetry(TelemetryConfig.from_env(env), "sse")
    try:
        async with Sidecar(config, telemetry):
            await until_stopped()
    finally:
        telemetry.close()


def allow_open_files(needed: int) -> None:
    """Each stream is an open file; raises the limit as far as the system lets a process do so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            log.warning("open files are limited to %d; SSE_MAX_STREAMS needs %d", soft, needed)


if __name__ == "__main__":
    sys.exit(main("sse", {"run": run}, sys.argv[1:], default="run"))
