"""Drains the Envoy next door before its pod ends: `python -m sse.drain ADMIN_PORT DELAY GRACE`, as a preStop hook.

Envoy by itself ends at once on SIGTERM and cuts what is under way, and its image brings no tool to ask it for more.
Only the standard library's smallest parts are used: this runs beside the sidecar, in its memory.
"""

import socket
import sys
import time

BUSY = r"^cluster\.(product|order)\.upstream_rq_active$"
"""Calls under way to the services. Event streams are not among them: the sidecar ends these itself, afterwards."""

INTERVAL = 0.25
"""Seconds between two looks at what is under way."""


def admin(port: int, method: str, path: str) -> str:
    """The body of Envoy's answer; OSError if it does not answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return answer.decode().partition("\r\n\r\n")[2]


def under_way(port: int) -> int:
    lines = admin(port, "GET", "/stats?format=text&filter=" + BUSY.replace("^", "%5E").replace("|", "%7C")).splitlines()
    return sum(int(value) for _, _, value in (line.rpartition(": ") for line in lines) if value.isdecimal())


def drain(port: int, delay: float, grace: float) -> None:
    """Readiness goes away and every answer closes its connection; `delay` seconds later (whoever balances has seen it)
    nothing new is accepted within `grace`, which calls under way have to finish."""
    admin(port, "POST", "/healthcheck/fail")
    time.sleep(delay)
    admin(port, "POST", "/drain_listeners?graceful")
    end = time.monotonic() + grace
    while under_way(port) and time.monotonic() < end:
        time.sleep(INTERVAL)


if __name__ == "__main__":
    try:
        drain(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
    except OSError as error:
        sys.exit(f"drain: Envoy does not answer: {error}")
