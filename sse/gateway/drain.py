"""Drains the Envoy next door before its pod ends: `gateway-drain`, as a preStop hook.

Envoy by itself ends at once on SIGTERM and cuts running requests, and its image has no tool to drain it. The hook also
runs when the sidecar alone is restarted because it hangs: Envoy stays then, and must not be drained.
"""

import argparse
import os
import sys
import time

from sse.gateway.admin import ask, services

HANG_TIMEOUT = 5.0
"""Seconds within which a sidecar that works responds; the same as the liveness probe's."""

DRAIN_POLL_INTERVAL = 0.25
"""Seconds between two checks whether requests are still running."""


def drain(port: int, delay: float, grace: float) -> None:
    """Takes Envoy's readiness away, then its listeners, and waits for running requests.

    Event streams are not waited for: the sidecar ends them itself, afterwards.

    Args:
        port: Envoy's admin port.
        delay: Seconds until new connections are refused; by then, load balancers have seen that Envoy is not ready.
        grace: Seconds that running requests get to finish.
    """
    ask(port, "POST", "/healthcheck/fail")
    time.sleep(delay)
    ask(port, "POST", "/drain_listeners?graceful")
    end = time.monotonic() + grace
    while sum(services(port, "upstream_rq_active")) and time.monotonic() < end:
        time.sleep(DRAIN_POLL_INTERVAL)


def hangs(http_port: int) -> bool:
    """Returns whether the sidecar accepts connections but does not respond, or is gone."""
    try:
        ask(http_port, "GET", "/", HANG_TIMEOUT)
    except OSError:
        return True
    return False


def hook(http_port: int, port: int, delay: float, grace: float) -> None:
    """Drains Envoy, unless the hook runs because the sidecar hangs.

    Raises:
        SystemExit: Envoy was not drained; says why, in one line.
    """
    if hangs(http_port):
        sys.exit("drain: skipped, because the sidecar hangs and is being restarted; Envoy keeps running")
    try:
        drain(port, delay, grace)
    except OSError as error:
        sys.exit(f"drain: Envoy does not respond: {error}")


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
