"""What the edge tells browsers about pages of other origins."""

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from local.edge import EdgeSettings, origin_match, render
from tests.support.edge import Edge, edge, edge_fixture, http_fixture
from tests.support.rest import Rest

in_module = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://shop.example"
BELOW = "https://*.shop.example:8443"
RPC = "/shop.product.v1.ProductService/GetProduct"
PATHS = ["/api/v1/products", "/api/v1/orders/abc:cancel", "/api/orders/stream", "/api/v1/orders/abc/status/stream", RPC]

HEADERS = (
    "authorization, baggage, b3, cache-control, cart-secret, connect-protocol-version, connect-timeout-ms, "
    "content-type, grpc-timeout, idempotency-key, if-match, if-none-match, last-event-id, order-ticket, pragma, "
    "sentry-trace, traceparent, tracestate, x-b3-traceid, x-datadog-trace-id, x-datadog-parent-id, x-datadog-origin, "
    "x-grpc-web, x-request-id, x-requested-with, x-user-agent"
)
"""What the API reads, and what clients and tracers add by themselves."""


shop = edge_fixture(cors_origins=(ORIGIN, BELOW), cors_credentials=True)
http = http_fixture()


def preflight(origin: str, method: str = "POST", headers: str = "content-type") -> dict[str, str]:
    return {"origin": origin, "access-control-request-method": method, "access-control-request-headers": headers}


@in_module
@pytest.mark.parametrize("path", PATHS)
async def test_allowed_origin_may_send_usual_headers(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.options(path, headers=preflight(ORIGIN, headers=HEADERS))
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert set(HEADERS.split(", ")) <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert {"GET", "HEAD", "POST", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))


@in_module
@pytest.mark.parametrize("path", [*PATHS[:1], *PATHS[2:4], "/api/v1/products/busy", "/api/v1/products?bogus=1"])
async def test_allowed_origin_may_read_needed_headers(http: httpx.AsyncClient, path: str) -> None:
    """With cookies, since this edge is told so; `Retry-After` of a refusal too."""
    answer = await http.get(path, headers={"origin": ORIGIN, "cookie": "session=1"})
    assert answer.headers["access-control-allow-credentials"] == "true"
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"etag", "retry-after", "location", "x-request-id", "allow", "grpc-status", "grpc-message"} <= exposed


@in_module
async def test_only_allowed_origins_may_write(shop: Edge, http: httpx.AsyncClient) -> None:
    """A browser that gets no yes to its question sends nothing; what it sends without asking is refused."""
    assert (await http.post("/api/v1/orders", json={}, headers={"origin": ORIGIN})).status_code == 200
    shop.calls.count.clear()
    for path in PATHS:
        answer = await http.options(path, headers=preflight("https://elsewhere.example"))
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.status_code == 204
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        Rest.refused(await http.post(RPC, content=b"\0" * 5, headers={"content-type": kind, "origin": ORIGIN}), 415, 3)
    assert not shop.calls.count


@in_module
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (ORIGIN, True),
        ("https://a.shop.example:8443", True),
        ("https://a.b.shop.example:8443", True),
        ("https://shop.example:8443", False),
        ("https://a.shop.example", False),
        ("http://shop.example", False),
        ("https://a.shop-example:8443", False),
        ("https://evilshop.example:8443", False),
        ("https://a.shop.example:8443.evil.example", False),
        ("https://evil.example/.shop.example:8443", False),
        ("null", False),
    ],
)
async def test_wildcard_origin_matches_subdomains_only(http: httpx.AsyncClient, origin: str, allowed: bool) -> None:
    answer = await http.get("/api/v1/products", headers={"origin": origin})
    assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)


@in_module
@pytest.mark.parametrize("path", [*PATHS[:4], "/api/v1/products/missing", "/api/v1/products?bogus=1"])
async def test_responses_vary_by_origin(http: httpx.AsyncClient, path: str) -> None:
    """Also what nobody's page asked for: a cache would give it, without a yes, to a page that may read it."""
    for headers in ({}, {"origin": ORIGIN}, {"origin": "https://elsewhere.example"}):
        answer = await http.get(path, headers=headers)
        assert "origin" in answer.headers["vary"].lower().split(", ")


SETTINGS = EdgeSettings(files=Path(), product="product:50052", order="order:50053", sse_http_port=1, sse_grpc_port=2)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://xn--mnchen-3ya.example", "http://[::1]:3000"])
def test_valid_origin_is_accepted(origin: str) -> None:
    assert origin_match(origin) == {"exact": origin}


@pytest.mark.parametrize(
    "origin",
    [
        "https://Shop.example",
        "HTTPS://shop.example",
        "https://shop.example:443",
        "https://*.shop.example:443",
        "http://shop.example:80",
        "https://münchen.example",
        "https://a b",
        "https://shop.example/",
        "https://shop.*.example",
        "https://*",
        "shop.example",
        "null",
        "",
    ],
)
def test_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin as browsers send it"):
        render(replace(SETTINGS, cors_origins=(origin,)))


def test_credentials_for_every_origin_are_refused() -> None:
    with pytest.raises(ValueError, match="name the origins"):
        render(replace(SETTINGS, cors_origins=("*",), cors_credentials=True))


async def test_credentials_are_off_by_default() -> None:
    async with edge(cors_origins=(ORIGIN,)) as running, httpx.AsyncClient(base_url=running.url) as http:
        answer = await http.get("/api/v1/products", headers={"origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
