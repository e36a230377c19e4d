"""Whether the edge can be told to begin: `gateway-warm`, as a startup probe beside Envoy.

On a first install the edge is up before the services are, and finds them by DNS, whose answer that there is nothing yet
clusters keep for up to 30 seconds. A pod that is ready must not answer 503 for want of that. After --timeout seconds it
begins in any case: what a service that stays away is for clients, the edge says better than a closed port.
"""

import argparse
import os
import sys
from pathlib import Path

from sse.gateway.admin import services


def age() -> float:
    """Seconds since the container's first process began."""
    began = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - began


def warm(port: int) -> bool:
    """Envoy has found both services, and healthy."""
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
