"""Requests to the pod's other ports, above all Envoy's admin port.

The commands that make them run beside the sidecar and share its memory limit, so only the smallest parts of the
standard library are used here.
"""

import socket


def ask(port: int, method: str, path: str, timeout: float = 2) -> str:
    """Returns the body of the response of a server on loopback.

    Raises:
        OSError: No response came within `timeout` seconds.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    return response.decode().partition("\r\n\r\n")[2]


def services(port: int, statistic: str) -> list[int]:
    """Returns a statistic of the clusters of product and order, such as `upstream_rq_active`.

    A cluster without the statistic is left out.
    """
    pattern = f"%5Ecluster%5C.(product%7Corder)%5C.{statistic}$"
    lines = ask(port, "GET", f"/stats?format=text&filter={pattern}").splitlines()
    # The response is short enough for one chunk; the lengths of chunks are lines too.
    return [int(line.rpartition(": ")[2]) for line in lines if line.startswith("cluster.")]
