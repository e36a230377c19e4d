"""Helpers for the checks of `helm test`. EDGE is the address of the edge, as in `http://shop-gateway:8080`."""

import json
import os
import ssl
import sys
import time
import uuid
from collections.abc import Callable
from email.message import Message
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

EDGE = urlsplit(os.environ["EDGE"])
HOST, PORT = str(EDGE.hostname), int(EDGE.port or 80)
TLS = EDGE.scheme == "https"
START_TIMEOUT = 60.0
"""Seconds until everything has to work. A test may run while the shop still starts."""

TIMEOUT = float(os.environ.get("TIMEOUT", "10"))
"""Timeout of a request, in seconds."""


class Failed(Exception):
    """The shop does not behave as it should."""


def connection(timeout: float = TIMEOUT) -> HTTPConnection:
    """Returns a connection to the edge, which opens with the first request."""
    if TLS:
        # The certificate is for the public name of the shop, not for its Service.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection(HOST, PORT, timeout=timeout, context=context)
    return HTTPConnection(HOST, PORT, timeout=timeout)


def send(method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Sends a request. Returns the status and the JSON of the response."""
    status, _, response = exchange(method, path, body, headers)
    return status, response


def exchange(
    method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, Message, Any]:
    """Sends a request. Returns the status, the headers and the JSON of the response."""
    http = connection()
    try:
        payload = None if body is None else json.dumps(body)
        http.request(method, path, payload, {"Content-Type": "application/json", **(headers or {})})
        response: HTTPResponse = http.getresponse()
        text = response.read()
        return response.status, response.headers, json.loads(text) if text else None
    finally:
        http.close()


def call(method: str, path: str, body: object = None, **headers: str) -> Any:
    """Sends a request that has to succeed. Returns the JSON of the response, or raises Failed."""
    status, response = send(method, path, body, headers)
    if status != 200:
        raise Failed(f"{method} {path}: {status} {response}")
    return response


def create_product(stock: int) -> Any:
    """Creates a product with a unique name. Returns it."""
    name = f"helm test {uuid.uuid4()}"
    price = {"currencyCode": "EUR", "units": "9", "nanos": 990000000}
    return call(
        "POST", "/api/v1/products", {"name": name, "price": price, "stock": str(stock), "category": "helm test"}
    )


def eventually(check: Callable[[], None]) -> None:
    """Repeats a check until it passes, for at most START_TIMEOUT seconds. Then raises Failed."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            return check()
        except (Failed, OSError) as error:
            if time.monotonic() > deadline:
                raise Failed(str(error)) from None
            time.sleep(1)


def main(check: Callable[[], None]) -> None:
    """Runs a check as a program. Exits with 1 if it fails."""
    try:
        check()
    except (Failed, OSError) as error:
        sys.exit(f"FAILED: {error}")
    print("ok")
