"""What the checks of `helm test` leave behind, in a fake shop."""

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
"""Its total is wrong, so the check fails after it has placed the order."""


@contextmanager
def shop(cancelled: int) -> Iterator[tuple[str, list[str]]]:
    """Runs a fake shop until the end of the block. Yields its address and the list of its requests.

    Args:
        cancelled: the HTTP status of its response to a cancellation.
    """
    requests: list[str] = []

    class Shop(BaseHTTPRequestHandler):
        def respond(self) -> None:
            requests.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(ORDER).encode()
            self.send_response(cancelled if self.path.endswith(":cancel") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = respond  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()


@pytest.mark.parametrize("cancelled", [200, 400])
def test_failed_check_removes_its_order(cancelled: int) -> None:
    """Even if the cancellation fails; the output is about the first failure."""
    with shop(cancelled) as (url, requests):
        command = [sys.executable, str(tools.CHART / "files/tests/check_order.py")]
        environment = {**os.environ, "EDGE": url}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "FAILED: two pieces at 9.99 cost" in done.stderr
    assert requests[-2:] == ["POST /api/v1/orders/o1:cancel", "DELETE /api/v1/products/o1"]


@pytest.mark.parametrize(("program", "failed"), [("rest", "POST /api/v1/products"), ("guest", "GET /api/v1/orders/")])
def test_check_fails_on_shop_that_asks_for_no_token(program: str, failed: str) -> None:
    with shop(200) as (url, _):
        command = [sys.executable, str(tools.CHART / f"files/tests/check_{program}.py")]
        environment = {**os.environ, "EDGE": url, "AUTH_MODE": "jwt", "AUTH_GUESTS": "true"}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"FAILED: {failed}" in done.stderr
    assert "not 401 TOKEN_REQUIRED" in done.stderr
