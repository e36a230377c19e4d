"""Says which addresses can be connected to from this pod, as a JSON object.

`python reach.py host:port … -- host:port …`: the first ones should be reached, and are tried until they are, as
policies take a moment to be in force; the others are tried once, after them.
"""

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 3.0
"""Seconds for a connection. A policy drops packets without a word."""
RETRIED = 20.0
"""Seconds in which what should be reached has to be."""


def reached(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError:
        return False
    return True


def reached_in_time(address: str) -> bool:
    end = time.monotonic() + RETRIED
    while not (found := reached(address)) and time.monotonic() < end:
        time.sleep(0.5)
    return found


split = sys.argv.index("--")
wanted, others = sys.argv[1:split], sys.argv[split + 1 :]
with ThreadPoolExecutor(len(sys.argv)) as pool:
    answers = dict(zip(wanted, pool.map(reached_in_time, wanted), strict=True))
    # Only when all of those have been answered for.
    answers |= dict(zip(others, list(pool.map(reached, others)), strict=True))
print(json.dumps(answers))
