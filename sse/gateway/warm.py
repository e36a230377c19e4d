"""Tells whether the edge can start to serve: `gateway-warm`, as a startup probe beside Envoy.

On a first install the edge is up before the services are. It finds them by DNS, and clusters cache for up to 30
seconds that a name does not exist yet. A pod that is ready must not return 503 because of that. After --timeout seconds
the edge starts in any case: that a service is unavailable, it tells clients better than a closed port does.
"""

import argparse
import os
import sys
from pathlib import Path

from sse.gateway.admin import services


def age() -> float:
    """Returns the seconds since the container's first process started."""
    began = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - began


def warm(port: int) -> bool:
    """Returns whether Envoy has found both services, and healthy."""
    try:
        found = services(port, "membership_healthy")
    except OSError:
        return False
    return len(found) == 2 and all(found)


def main() -> None:
    """Runs the command line: SystemExit says in one line why the edge is not ready."""
    parser = argparse.ArgumentParser(prog="gateway-warm", description="Check that Envoy has found the services.")
    parser.add_argument("--admin-port", type=int, default=9901, help="Envoy's admin port on loopback")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds after which the edge starts in any case")
    options = parser.parse_args()
    if not warm(options.admin_port) and age() < options.timeout:
        sys.exit("the edge has not found the services yet")


if __name__ == "__main__":
    main()
