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
from uuid import uuid4

import pytest

from tests.chart import tools

ORDER: dict[str, Any] = {"id": "o1", "number": "INV-1", "total": {"currencyCode": "EUR", "units": "1"}}
"""Its total is wrong, so the check fails after it has placed the order."""

CART: dict[str, Any] = {"cart": {"id": "c1"}, "secret": "secret", "etag": "e1", "total": {}}

ITEMS = [{"productId": "o1", "quantity": 2, "problems": []}]


def response(requests: list[str], secret: str | None, cancelled: int, doubled: bool) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of a response.

    Args:
        requests: The requests so far. The last one gets this response.
        secret: The secret of a cart, if the request has one.
        cancelled: The HTTP status of the response to a cancellation.
        doubled: Whether each checkout places an order of its own.
    """
    if secret == "none":
        return 404, {"code": 5}
    if requests[-1].endswith(":cancel"):
        return cancelled, {}
    if "/carts" in requests[-1] and not requests[-1].endswith(":checkout"):
        return 200, {**CART, "items": [] if any(each.endswith(":checkout") for each in requests) else ITEMS}
    if doubled and requests[-1].endswith(":checkout"):
        return 200, {**ORDER, "id": str(uuid4())}
    return 200, ORDER


@contextmanager
def shop(cancelled: int, doubled: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Runs a fake shop until the end of the block. Yields its address and the list of its requests.

    Args:
        cancelled: the HTTP status of its response to a cancellation.
        doubled: whether each checkout places an order of its own.
    """
    requests: list[str] = []

    class Shop(BaseHTTPRequestHandler):
        def respond(self) -> None:
            requests.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = response(requests, self.headers.get("Cart-Secret"), cancelled, doubled)
            body = json.dumps(content).encode()
            self.send_response(status)
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
    assert requests[-3:] == [
        "POST /api/v1/orders/o1:cancel",
        "DELETE /api/v1/carts/c1",
        "DELETE /api/v1/products/o1",
    ]


def test_check_fails_on_shop_that_orders_twice() -> None:
    with shop(200, doubled=True) as (url, requests):
        command = [sys.executable, str(tools.CHART / "files/tests/check_order.py")]
        environment = {**os.environ, "EDGE": url}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "FAILED: a double click placed two orders" in done.stderr
    assert requests.count("POST /api/v1/carts/c1:checkout") == 2


@pytest.mark.parametrize(("program", "failed"), [("rest", "POST /api/v1/products"), ("guest", "GET /api/v1/orders/")])
def test_check_fails_on_shop_that_asks_for_no_token(program: str, failed: str) -> None:
    with shop(200) as (url, _):
        command = [sys.executable, str(tools.CHART / f"files/tests/check_{program}.py")]
        environment = {**os.environ, "EDGE": url, "AUTH_MODE": "jwt", "AUTH_GUESTS": "true"}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"FAILED: {failed}" in done.stderr
    assert "not 401 TOKEN_REQUIRED" in done.stderr
