"""Drains the Envoy next door before its pod ends: `gateway-drain`, as a preStop hook.

Envoy by itself ends at once on SIGTERM and cuts what is under way, and its image brings no tool to ask it for more. The
hook also runs where the sidecar alone is restarted, because it hangs: Envoy stays then, and must not be drained.
"""

import argparse
import os
import sys
import time

from sse.gateway.admin import ask, services

PATIENCE = 5.0
"""Seconds in which a sidecar that works answers; that of the liveness probe."""

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


def hangs(http_port: int) -> bool:
    """Whether the sidecar answers nothing, whatever it is asked."""
    try:
        ask(http_port, "GET", "/", PATIENCE)
    except OSError:
        return True
    return False


def hook(http_port: int, port: int, delay: float, grace: float) -> None:
    """Drains, unless it is the sidecar (on `http_port`) that is the trouble: SystemExit says why not, in one line."""
    if hangs(http_port):
        sys.exit("drain: the sidecar hangs and is restarted; Envoy goes on")
    try:
        drain(port, delay, grace)
    except OSError as error:
        sys.exit(f"drain: Envoy does not answer: {error}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="gateway-drain", description="Drain the Envoy of this pod before it ends.")
    parser.add_argument("--admin-port", type=int, default=9901, help="Envoy's admin port on loopback")
    parser.add_argument("--delay", type=float, required=True, help="seconds until new connections are refused")
    parser.add_argument("--grace", type=float, required=True, help="seconds that running calls get to finish")
    options = parser.parse_args()
    hook(int(os.environ.get("HTTP_PORT", "8081")), options.admin_port, options.delay, options.grace)


if __name__ == "__main__":
    main()
