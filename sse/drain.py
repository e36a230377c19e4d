"""Drains the Envoy next door before its pod ends: `python -m sse.drain ADMIN_PORT DELAY GRACE`, as a preStop hook.

Envoy by itself ends at once on SIGTERM and cuts what is under way, and its image brings no tool to ask it for more.
"""

import sys
import time

from sse.admin import ask, services

INTERVAL = 0.25
"""Seconds between two looks at what is under way."""


def drain(port: int, delay: float, grace: float) -> None:
    """Readiness goes away and every answer closes its connection; `delay` seconds later (whoever balances has seen it)
    nothing new is accepted within `grace`, which calls under way have to finish. Event streams are not among them: the
    sidecar ends these itself, afterwards."""
    ask(port, "POST", "/healthcheck/fail")
    time.sleep(delay)
    ask(port, "POST", "/drain_listeners?graceful")
    end = time.monotonic() + grace
    while sum(services(port, "upstream_rq_active")) and time.monotonic() < end:
        time.sleep(INTERVAL)


if __name__ == "__main__":
    try:
        drain(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
    except OSError as error:
        sys.exit(f"drain: Envoy does not answer: {error}")
