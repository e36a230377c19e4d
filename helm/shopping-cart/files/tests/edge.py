"""What the checks of `helm test` share. EDGE is the address of the edge, as in `http://shop-gateway:8080`."""

import json
import os
import ssl
import sys
import time
import uuid
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

EDGE = urlsplit(os.environ["EDGE"])
HOST, PORT = str(EDGE.hostname), int(EDGE.port or 80)
TLS = EDGE.scheme == "https"
PATIENCE = 60.0
"""Seconds in which everything has to work: a test may begin while the shop still starts."""

TIMEOUT = float(os.environ.get("TIMEOUT", "10"))
"""Seconds that an answer may take."""


class Failed(Exception):
    """The shop does not do what it should."""


def connection(timeout: float = TIMEOUT) -> HTTPConnection:
    if TLS:
        # The certificate is for the shop's public name, not for the Service that is asked here.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection(HOST, PORT, timeout=timeout, context=context)
    return HTTPConnection(HOST, PORT, timeout=timeout)


def ask(method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    http = connection()
    try:
        payload = None if body is None else json.dumps(body)
        http.request(method, path, payload, {"Content-Type": "application/json", **(headers or {})})
        answer: HTTPResponse = http.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        http.close()


def call(method: str, path: str, body: object = None, **headers: str) -> Any:
    """As `ask`, for what has to succeed."""
    status, answer = ask(method, path, body, headers)
    if status != 200:
        raise Failed(f"{method} {path}: {status} {answer}")
    return answer


def create_product(stock: int) -> Any:
    name = f"helm test {uuid.uuid4()}"
    price = {"currencyCode": "EUR", "units": "9", "nanos": 990000000}
    return call(
        "POST", "/api/v1/products", {"name": name, "price": price, "stock": str(stock), "category": "helm test"}
    )


def eventually(check: Callable[[], None]) -> None:
    """Tries until it works, at most PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return check()
        except (Failed, OSError) as error:
            if time.monotonic() > end:
                raise Failed(str(error)) from None
            time.sleep(1)


def main(check: Callable[[], None]) -> None:
    try:
        check()
    except (Failed, OSError) as error:
        sys.exit(f"FAILED: {error}")
    print("ok")
