"""Whether the edge can be told to begin: `python -m sse.warm ADMIN_PORT PATIENCE`, as a startup probe beside Envoy.

On a first install the edge is up before the services are, and finds them by DNS, whose answer that there is nothing yet
clusters keep for up to 30 seconds. A pod that is ready must not answer 503 for want of that. After PATIENCE seconds it
begins in any case: what a service that stays away is for clients, the edge says better than a closed port.
"""

import os
import sys
from pathlib import Path

from sse.admin import services


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


if __name__ == "__main__":
    if not warm(int(sys.argv[1])) and age() < float(sys.argv[2]):
        sys.exit("the edge has not found the services yet")
