"""Says which addresses can be connected to from this pod: `python reach.py host:port …` prints a JSON object."""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 3.0
"""Seconds for a connection. A policy drops packets without a word."""


def reached(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError:
        return False
    return True


addresses = sys.argv[1:]
with ThreadPoolExecutor(len(addresses)) as pool:
    print(json.dumps(dict(zip(addresses, pool.map(reached, addresses), strict=True))))
