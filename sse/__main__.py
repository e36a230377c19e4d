"""The command line of the sidecar."""

import logging
import os
import resource
import sys
from argparse import Namespace

from runtime import cli
from runtime.config import Env
from runtime.server import until_stopped
from sse.app import NAME, serving
from sse.config import SidecarConfig

log = logging.getLogger(__name__)

SPARE_FILES = 200
"""Open files beside those of the streams."""


async def serve(_: Namespace) -> None:
    """Serves until SIGTERM."""
    config = SidecarConfig.from_env(Env(os.environ))
    allow_open_files(config.limits.streams + SPARE_FILES)
    async with serving(config):
        await until_stopped()


def allow_open_files(needed: int) -> None:
    """Raises the limit of open files as far as the system lets a process do so: each stream is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            log.warning("open files are limited to %d; SSE_MAX_STREAMS needs %d", soft, needed)


def main() -> int:
    """Runs the command line. Returns the exit status."""
    commands = {"serve": cli.Command(run=serve, summary="serve event streams until SIGTERM")}
    return cli.main(NAME, "The sidecar that serves order statuses as server-sent events.", commands, default="serve")


if __name__ == "__main__":
    sys.exit(main())
