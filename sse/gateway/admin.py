"""The ports next door, above all Envoy's admin port, for commands that run beside the sidecar and in its memory: only
the standard library's smallest parts are used here."""

import socket


def ask(port: int, method: str, path: str, timeout: float = 2) -> str:
    """The body of the answer of a server on loopback; OSError if none comes within `timeout` seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return answer.decode().partition("\r\n\r\n")[2]


def services(port: int, statistic: str) -> list[int]:
    """A statistic of the clusters of product and order, as in `upstream_rq_active`; those that are not counted yet are
    left out."""
    pattern = f"%5Ecluster%5C.(product%7Corder)%5C.{statistic}$"
    lines = ask(port, "GET", f"/stats?format=text&filter={pattern}").splitlines()
    # The answer is short enough for one chunk; the lengths of chunks are lines too.
    return [int(line.rpartition(": ")[2]) for line in lines if line.startswith("cluster.")]
