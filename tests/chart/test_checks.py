"""What the checks of `helm test` leave behind, asked of a shop in small."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.chart import tools

ORDER: dict[str, Any] = {"id": "o1", "number": "INV-1", "total": {"currencyCode": "EUR", "units": "1"}}
"""With a wrong total: the check fails once the order is placed."""


@contextmanager
def shop(cancelled: int) -> Iterator[tuple[str, list[str]]]:
    """Its address and what it is asked; `cancelled` is the status of the answer to a cancellation."""
    asked: list[str] = []

    class Shop(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(ORDER).encode()
            self.send_response(cancelled if self.path.endswith(":cancel") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


@pytest.mark.parametrize("cancelled", [200, 400])
def test_a_check_that_fails_leaves_no_order_behind(cancelled: int) -> None:
    """Also where it is too late for that: what went wrong first is what is said."""
    with shop(cancelled) as (url, asked):
        command = [sys.executable, str(tools.CHART / "files/tests/check_order.py")]
        environment = {**os.environ, "EDGE": url}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "FAILED: two pieces at 9.99 make" in done.stderr
    assert asked[-2:] == ["POST /api/v1/orders/o1:cancel", "DELETE /api/v1/products/o1"]
