"""The attackers' process: `python -m tests.abuse.attack NAME PORT SECONDS TARGET`. It ends by itself.

TARGET is the id of an order; for FLOODS_OF_REQUESTS, it is the URL of the issuer of tokens, or the id of a cart.
"""

import asyncio
import json
import ssl
import sys
from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_urlsafe

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from bench.files import allow
from tests.abuse.flood import Flood, Headers, Http1, Http2, Request
from tests.support.oidc import Issuer, new_key

BODY = b'{"notes":"' + b"x" * (150 * 1024)
"""A body that the edge takes, of which the end never comes."""

LARGE_PAGE = "/api/v1/products?pageSize=100&category=Large"
SMALL_PAGE = "/api/v1/products?pageSize=20&category=Small"

HALF_HTTP2 = "half-sent bodies, HTTP/2"
MANY_HALF = "more half-sent bodies than there is memory"

RESETS = "streams reset at once"

LARGE_HEADERS = "headers of 31 KiB"

FLOODS = (
    RESETS,
    "large answers not read, HTTP/2",
    "large answers not read, gRPC",
    "native status streams",
    "gRPC-Web status streams",
    "event streams",
    "health watches",
    "reflection streams",
)
"""Those that are also thousands of calls in a second, since what is refused is asked for again at once."""

STATUS_STREAM = "/shop.order.v1.OrderService/StreamOrderStatus"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def _headers(method: str, path: str, *more: tuple[str, str]) -> Headers:
    return [(":method", method), (":scheme", "http"), (":authority", "shop"), (":path", path), *more]


def _grpc(path: str, *more: tuple[str, str]) -> Headers:
    return _headers("POST", path, ("content-type", "application/grpc"), ("te", "trailers"), *more)


def _frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _http1(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: shop", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def _http2(port: int, connections: int, request: Request, streams: int = 128, window: int = 65_535) -> Flood:
    return Flood(port, connections, lambda flood: Http2(flood, request, streams, window=window), pace=20)


def _follow(order_id: str) -> bytes:
    return _frame(order_pb2.StreamOrderStatusRequest(order_id=order_id).SerializeToString())


def _half_http1(port: int, order_id: str, connections: int = 600) -> Flood:
    first = _http1("POST", "/api/v1/orders", f"Content-Length: {len(BODY) + 100}") + BODY
    return Flood(port, connections, lambda _: Http1(first))


def _half_http2(port: int, order_id: str) -> Flood:
    json_type = ("content-type", "application/json")
    return _http2(port, 40, Request(_headers("POST", "/api/v1/orders", json_type), BODY, ends=False))


def _half_grpc(port: int, order_id: str) -> Flood:
    message = _frame(b"x" * 150_000)[:-1]
    return _http2(port, 40, Request(_grpc("/shop.order.v1.OrderService/CreateOrder"), message, ends=False))


def _unread_large(port: int, order_id: str) -> Flood:
    return _http2(port, 5, Request(_headers("GET", LARGE_PAGE), rate=10), window=0)


def _unread_grpc(port: int, order_id: str) -> Flood:
    """The answers wait in the service, since the edge passes on what the client takes."""
    message = _frame(product_pb2.ListProductsRequest(page_size=100, category="Large").SerializeToString())
    request = Request(_grpc("/shop.product.v1.ProductService/ListProducts"), message, rate=10)
    return _http2(port, 5, request, window=0)


def _unread_small(port: int, order_id: str) -> Flood:
    return _http2(port, 40, Request(_headers("GET", SMALL_PAGE), rate=10), window=0)


def _unread_http1(port: int, order_id: str) -> Flood:
    return Flood(port, 400, lambda _: Http1(_http1("GET", LARGE_PAGE), reads=False), receive_buffer=2_048, rate=40)


def _idle(port: int, order_id: str) -> Flood:
    return Flood(port, 12_000, lambda _: Http1(_http1("GET", "/healthz")))


def _idle_http2(port: int, order_id: str) -> Flood:
    return Flood(port, 8_000, lambda flood: Http2(flood, Request(_headers("GET", "/healthz")), 0))


def _idle_tls(port: int, order_id: str) -> Flood:
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    return Flood(port, 4_000, lambda _: Http1(_http1("GET", "/healthz")), tls=trust, pace=50)


def _slowloris(port: int, order_id: str) -> Flood:
    first = b"GET /api/v1/products HTTP/1.1\r\nHost: shop\r\n"
    return Flood(port, 5_000, lambda _: Http1(first, more=b"X-More: 1\r\n"))


def _large_headers(port: int, order_id: str) -> Flood:
    """Each stream has 31 KiB of headers, which cost some thirty bytes: HPACK names what was sent before."""
    large = [(f"x-{number}", "x" * 3_000) for number in range(10)]
    json_type = ("content-type", "application/json")
    request = Request(_headers("POST", "/api/v1/orders", json_type, *large), b"{", ends=False)
    return _http2(port, 100, request)


def _too_large_headers(port: int, order_id: str) -> Flood:
    large = [(f"x-{number}", "x" * 3_000) for number in range(15)]
    return _http2(port, 50, Request(_headers("GET", "/api/v1/products", *large)))


def _rapid_reset(port: int, order_id: str) -> Flood:
    return _http2(port, 20, Request(_headers("GET", SMALL_PAGE), resets=True), streams=100)


def _status_streams(port: int, order_id: str) -> Flood:
    return _http2(port, 30, Request(_grpc(STATUS_STREAM), _follow(order_id), rate=20))


def _status_streams_web(port: int, order_id: str) -> Flood:
    body = _follow(order_id)
    first = _http1("POST", STATUS_STREAM, f"Content-Length: {len(body)}")
    first = first.replace(b"application/json", b"application/grpc-web+proto") + body
    return Flood(port, 3_000, lambda _: Http1(first))


def _watches(port: int, order_id: str) -> Flood:
    message = _frame(health_pb2.HealthCheckRequest().SerializeToString())
    return _http2(port, 30, Request(_grpc(WATCH), message, rate=20))


def _reflections(port: int, order_id: str) -> Flood:
    message = _frame(reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString())
    return _http2(port, 30, Request(_grpc(REFLECTION), message, ends=False, rate=20))


def _event_streams(port: int, order_id: str) -> Flood:
    return _http2(port, 30, Request(_headers("GET", f"/api/orders/stream?order_id={order_id}"), rate=20))


def _requests(port: int, headers: Callable[[], tuple[tuple[str, str], ...]]) -> Flood:
    """As many small reads as possible."""
    return _calls(port, lambda: Request(_headers("GET", "/api/v1/categories", *headers()), again=0.02))


def _calls(port: int, request: Callable[[], Request]) -> Flood:
    """As many calls as possible: each that is answered is followed by another one at once."""
    return Flood(port, 20, lambda flood: Http2(flood, request(), 50))


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _plain_requests(port: int, issuer: str) -> Flood:
    return _requests(port, tuple)


def _bad_tokens(port: int, issuer: str) -> Flood:
    """They name a key of the issuer, so that it takes a verification to refuse them."""
    key = new_key(kid=KNOWN_KEY)
    return _requests(port, lambda: _bearer(Issuer(issuer, keys=[key]).token()))


def _unknown_keys(port: int, issuer: str) -> Flood:
    """Each connection has a key of its own, which the services look for at the issuer."""
    return _requests(port, lambda: _bearer(Issuer(issuer, keys=[new_key()]).token()))


def _write(path: str, body: bytes, *headers: tuple[str, str]) -> Request:
    return Request(_headers("POST", path, ("content-type", "application/json"), *headers), body, again=0.02)


def _new_carts(port: int, issuer: str) -> Flood:
    return _calls(port, lambda: _write("/api/v1/carts", b"{}"))


def _wrong_secrets(port: int, cart_id: str) -> Flood:
    """Each connection tries a secret of its own on a cart that exists."""
    body = json.dumps({"productId": cart_id, "quantity": 1}).encode()
    return _calls(port, lambda: _write(f"/api/v1/carts/{cart_id}:add", body, ("cart-secret", token_urlsafe(32))))


KNOWN_KEY = "known"
"""The name of the issuer's key."""

UNKNOWN_KEYS = "tokens of unknown keys"
NEW_CARTS = "new carts"
WRONG_SECRETS = "wrong secrets of a cart"

FLOODS_OF_REQUESTS: Mapping[str, Callable[[int, str], Flood]] = {
    "requests": _plain_requests,
    "bad tokens": _bad_tokens,
    UNKNOWN_KEYS: _unknown_keys,
    NEW_CARTS: _new_carts,
    WRONG_SECRETS: _wrong_secrets,
}
"""Attacks that the limit of requests is for."""

ATTACKS: Mapping[str, Callable[[int, str], Flood]] = {
    "half-sent bodies, HTTP/1.1": _half_http1,
    MANY_HALF: partial(_half_http1, connections=3_000),
    HALF_HTTP2: _half_http2,
    "half-sent messages, gRPC": _half_grpc,
    "large answers not read, HTTP/1.1": _unread_http1,
    "large answers not read, HTTP/2": _unread_large,
    "large answers not read, gRPC": _unread_grpc,
    "small answers not read, HTTP/2": _unread_small,
    "idle connections, HTTP/1.1": _idle,
    "idle connections, HTTP/2": _idle_http2,
    "idle connections, TLS": _idle_tls,
    "headers that never end": _slowloris,
    LARGE_HEADERS: _large_headers,
    "headers of 46 KiB": _too_large_headers,
    RESETS: _rapid_reset,
    "native status streams": _status_streams,
    "gRPC-Web status streams": _status_streams_web,
    "event streams": _event_streams,
    "health watches": _watches,
    "reflection streams": _reflections,
}


async def main(name: str, port: int, seconds: float, target: str) -> None:
    allow(15_000)
    attacks = {**ATTACKS, **FLOODS_OF_REQUESTS}
    print(json.dumps(await attacks[name](port, target).run(seconds)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
