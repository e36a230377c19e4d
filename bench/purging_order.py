"""The order service, whose cart purger works only while a file exists: `python -m bench.purging_order FILE`.

So a purge can begin and pause at any time, in the process that serves the requests that are measured.
"""

import argparse
import os
import sys

from order.__main__ import serve
from order.jobs import expired_carts
from order.jobs.expired_carts import CartPurger
from runtime import cli

POLL_INTERVAL = 0.05
"""Seconds between two looks for the file."""

if __name__ == "__main__":
    switch = sys.argv[1]
    purge = CartPurger.step

    async def step(self: CartPurger) -> bool:
        return os.path.exists(switch) and await purge(self)  # noqa: ASYNC240 - it takes microseconds

    CartPurger.step = step  # type: ignore[method-assign]  # production code has no switch
    expired_carts.PURGE_INTERVAL = POLL_INTERVAL
    sys.exit(cli.run("order", lambda: serve(argparse.Namespace())))
