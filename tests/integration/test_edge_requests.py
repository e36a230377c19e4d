"""What the edge makes of requests that are not plain: other methods, content-types, queries and spellings."""

import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from local.edge import SOURCE
from local.pages import pages
from tests.support.edge import Edge, edge, edge_fixture, http_fixture
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

refused = Rest.refused
JSON = {"content-type": "application/json"}
SITE = {"origin": "https://elsewhere.example"}


shop = edge_fixture()
http = http_fixture("HTTP/1.1", "HTTP/2")


def rules() -> Iterator[tuple[MethodDescriptor, str, str, str]]:
    """Each REST method of the contract: (method, HTTP method, path of a resource, what the body is)."""
    for file, name in ((product_pb2, "ProductService"), (order_pb2, "OrderService"), (cart_pb2, "CartService")):
        for method in file.DESCRIPTOR.services_by_name[name].methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            if verb := rule.WhichOneof("pattern"):
                yield method, verb.upper(), re.sub(r"\{[^}]+\}", "abc", getattr(rule, verb)), rule.body


def query_fields(method: MethodDescriptor, path: str, body: str) -> Iterator[FieldDescriptor]:
    """The fields of a method's request that can be in the query."""
    for field in method.input_type.fields if body != "*" else ():
        if field.name not in ("id", body):
            yield field


PAGES = [page.path for page in pages()]
STREAMS = {"/api/orders/stream", "/api/v1/orders/abc/status/stream"}
RESOURCES = sorted({path for _, _, path, _ in rules()} | STREAMS)
READABLE = sorted({path for _, verb, path, _ in rules() if verb == "GET"} | STREAMS)


@pytest.mark.parametrize("path", [*RESOURCES, *PAGES, "/healthz"])
async def test_unsupported_method_gets_405_with_allow(http: httpx.AsyncClient, path: str) -> None:
    """`Allow` is what the contract has, HEAD where it has GET, and OPTIONS."""
    has = {verb for _, verb, at, _ in rules() if at == path} or {"GET"}
    expected = has | {"OPTIONS"} | ({"HEAD"} if "GET" in has else set())
    for method in ("GET", "POST", "PATCH", "DELETE", "PUT", "TRACE", "PURGE"):
        if method not in expected:
            answer = await http.request(method, path, headers=JSON)
            refused(answer, 405, 12)
            assert set(answer.headers["allow"].split(", ")) == expected, method
    options = await http.options(path)
    assert (options.status_code, options.content) in ((204, b""), (200, b""))
    if path != "/healthz":
        assert set(options.headers["allow"].split(", ")) == expected


@pytest.mark.parametrize(
    "path",
    [*(path for path in READABLE if ":" not in path), *PAGES, "/healthz", "/api/v1/products/missing", "/nothing"],
)
async def test_head_equals_get_without_body(http: httpx.AsyncClient, path: str) -> None:
    head, get = await http.head(path), await http.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-type", "content-length", "etag", "cache-control"):
        if name in get.headers and "stream" not in path and path != "/healthz":
            assert head.headers[name] == get.headers[name], name


async def test_head_of_large_response_has_no_body(http: httpx.AsyncClient) -> None:
    """More than the edge holds back for a filter."""
    answer = await http.head("/api/v1/products/large")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 100_000


SIMPLE = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
"""What a page of another site can send without asking first."""

WRITES = [
    ("POST", "/api/v1/orders"),
    ("POST", "/api/v1/products/"),
    ("POST", "/api/v1/orders/abc:cancel"),
    ("POST", "/api/v1/orders/abc%3Acancel"),
    ("POST", "/api/v1/products/abc:adjustStock"),
    ("PATCH", "/api/v1/products/abc"),
    ("DELETE", "/api/v1/products/abc"),
    ("POST", "/api/v1/carts"),
    ("POST", "/api/v1/carts:merge"),
    ("POST", "/api/v1/carts/abc:add"),
    ("POST", "/api/v1/carts/abc%3Acheckout"),
    ("DELETE", "/api/v1/carts/abc"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_write_without_json_gets_415(shop: Edge, http: httpx.AsyncClient, method: str, path: str) -> None:
    """Also where what calls itself a text is JSON: browsers ask first only for what forms cannot send."""
    shop.calls.count.clear()
    for kind in (*SIMPLE, "application/jsonp", "text/plain; application/json", "application/grpc-web"):
        headers = {"content-type": kind} if kind else {}
        refused(await http.request(method, path, content=b"{}", headers=headers), 415, 3)
    refused(await http.request(method, path, content=_stream(b"{}")), 415, 3)
    assert not shop.calls.count


async def _stream(*parts: bytes) -> AsyncIterator[bytes]:
    """A body whose length nobody knows before its end."""
    for part in parts:
        yield part


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/orders",
        "/api/v1/orders/abc:cancel",
        "/api/v1/orders/abc%3Acancel/",
        "/api/v1/carts",
        "/api/v1/carts/abc:clear",
    ],
)
async def test_simple_cross_site_post_gets_415(shop: Edge, http: httpx.AsyncClient, path: str) -> None:
    """Also without a body: `fetch(url, {method: "POST", mode: "no-cors", credentials: "include"})`."""
    shop.calls.count.clear()
    for browser in (
        SITE,
        {"origin": "null"},
        {**SITE, "sec-fetch-site": "cross-site"},
        {**SITE, "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
    ):
        for kind in SIMPLE:
            headers = {**browser, **({"content-type": kind} if kind else {})}
            refused(await http.post(path, headers=headers), 415, 3)
    assert not shop.calls.count


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"],
)
async def test_json_content_type_spellings_are_accepted(http: httpx.AsyncClient, kind: str) -> None:
    answer = await http.post("/api/v1/orders", content=b'{"notes": "x"}', headers={"content-type": kind, **SITE})
    assert answer.json()["notes"] == "x"


async def test_post_without_body_needs_no_content_type(http: httpx.AsyncClient) -> None:
    """`curl -X POST`, `curl -d ''`, an empty chunked body; and the shop's own page."""
    path = "/api/v1/orders/abc:cancel"
    form = {"content-type": "application/x-www-form-urlencoded", "content-length": "0"}
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    for headers in ({}, form, own, {**form, **own}):
        answer = await http.post(path, headers=headers)
        assert (answer.status_code, answer.json()["id"]) == (200, "abc"), headers
    assert (await http.post(path.replace(":", "%3A"), content=_stream())).json()["id"] == "abc"
    assert (await http.delete("/api/v1/products/abc?etag=7")).json()["id"] == "abc"


OVERRIDES = [
    "shippingAddress=Elsewhere",
    "shipping_address=Elsewhere",
    "delta=",
    "requestId=123e4567-e89b-42d3-a456-426614174000",
    "items.productId=abc&items.quantity=1",
    "customer.name=Eve",
    "secret=abc",
    "bogus=1",
]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/orders",
        "/api/v1/orders/abc:cancel",
        "/api/v1/products/abc:adjustStock",
        "/api/v1/carts",
        "/api/v1/carts:merge",
        "/api/v1/carts/abc:checkout",
    ],
)
@pytest.mark.parametrize("query", OVERRIDES)
async def test_query_parameter_of_a_write_is_refused(
    shop: Edge, http: httpx.AsyncClient, path: str, query: str
) -> None:
    """The transcoder would let it override the body, or add to it."""
    shop.calls.count.clear()
    error = refused(await http.post(f"{path}?{query}", json={"notes": "y"}), 400, 3)
    assert f"query parameter {re.split('[=&]', query)[0]} is" in error["message"]
    assert not shop.calls.count


async def test_query_of_a_write_may_set_fields_outside_its_body(http: httpx.AsyncClient) -> None:
    key = "123e4567-e89b-42d3-a456-426614174000"
    assert (await http.post(f"/api/v1/products?requestId={key}", json={"name": "x"})).json()["name"] == "x"
    assert (await http.post("/api/v1/products?", json={"name": "x"})).json()["name"] == "x"
    assert (await http.patch("/api/v1/products/abc?updateMask=name", json={"name": "x"})).json()["name"] == "x"
    for query in ("product.name=y", "product=y", "product.price.units=1", "requestId=x&product.stock=1"):
        refused(await http.post(f"/api/v1/products?{query}", json={"name": "x"}), 400, 3)


async def test_empty_query_parameter_counts_as_absent(http: httpx.AsyncClient) -> None:
    """Of every type: forms send them all."""
    for method, verb, path, body in rules():
        for field in query_fields(method, path, body):
            if field.is_repeated:
                continue
            for pair in {f"{field.name}=", f"{field.json_name}=", field.name}:
                answer = await http.request(verb, f"{path}?{pair}", json={} if body else None)
                assert answer.status_code == 200, (path, pair, answer.text)
    answer = await http.get("/api/v1/products?pageSize=&search=a&pageToken=&category=")
    assert answer.json()["products"][0]["name"] == "a"
    assert (await http.get("/api/v1/orders?status=&customerEmail=&number=")).status_code == 200
    assert (await http.get("/api/v1/products?search=a&search=")).json()["products"][0]["name"] == "a"
    refused(await http.get("/api/v1/products?bogus="), 400, 3)


async def test_only_list_query_parameters_may_be_repeated(http: httpx.AsyncClient) -> None:
    for method, verb, path, body in rules():
        for field in query_fields(method, path, body):
            names = (field.name, field.json_name)
            if field.is_repeated or field.message_type:
                continue
            for first, second in {(names[0], names[0]), names}:
                answer = await http.request(verb, f"{path}?{first}=1&{second}=1", json={} if body else None)
                error = refused(answer, 400, 3)
                assert f"{second} must occur only once" in error["message"]
    answer = await http.get("/api/v1/products:batchGet?ids=a&ids=b")
    assert [each["id"] for each in answer.json()["products"]] == ["a", "b"]
    masked = await http.patch("/api/v1/products/abc?updateMask=name&updateMask=sku", json={"name": "x"})
    assert masked.json()["name"] == "x"


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_custom_verb_spellings_are_accepted(http: httpx.AsyncClient, colon: str, slash: str) -> None:
    """`encodeURIComponent(id + ":cancel")`, and clients that end each path with a slash."""
    cancelled = await http.post(f"/api/v1/orders/abc{colon}cancel{slash}", json={})
    assert (cancelled.status_code, cancelled.json()["id"]) == (200, "abc")
    checked_out = await http.post(f"/api/v1/carts/abc{colon}checkout{slash}", json={})
    assert (checked_out.status_code, checked_out.json()["id"]) == (200, "abc")
    assert (await http.get(f"/api/v1/carts{colon}mine{slash}")).json()["id"] == "mine"
    merged = await http.post(f"/api/v1/carts{colon}merge{slash}", json={"cartId": "abc"})
    assert (merged.status_code, merged.json()["id"]) == (200, "abc")
    found = await http.get(f"/api/v1/products{colon}batchGet{slash}?ids=a")
    assert [each["id"] for each in found.json()["products"]] == ["a"]
    refused(await http.post(f"/api/v1/orders/abc{colon}zap{slash}", json={}), 404, 5)
    refused(await http.post(f"/api/v1/orders/abc{colon}cancel{slash}?id=zz", json={}), 400, 3)
    refused(await http.post(f"/api/v1/orders/abc{colon}cancel{slash}?%69d=zz", json={}), 400, 3)
    refused(await http.get(f"/api/v1/orders/abc{colon}cancel{slash}"), 405, 12)


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/api/orders/stream",
        "/api/v1/orders/abc/status/stream",
        "/api/v1/products",
        "/api/v1/orders/abc",
        "/api/v1/carts/abc",
    ],
)
async def test_trailing_slash_is_ignored(http: httpx.AsyncClient, path: str) -> None:
    plain, slashed = await http.get(path), await http.get(path + "/")
    assert (plain.status_code, slashed.status_code) == (200, 200)
    assert plain.headers.get("content-type") == slashed.headers.get("content-type")


@pytest.mark.parametrize("path", ["/api/v1/products", "/api/v1/products/abc", "/api/v1/orders/abc:cancel"])
async def test_grpc_request_to_a_rest_path_is_refused(shop: Edge, http: httpx.AsyncClient, path: str) -> None:
    """The transcoder would leave it as it is. A gRPC client is told in gRPC's words."""
    shop.calls.count.clear()
    for method in ("GET", "POST"):
        answer = await http.request(method, path, headers={"content-type": "application/grpc"})
        assert answer.headers["grpc-status"] == "12"
        web = await http.request(method, path, headers={"content-type": "application/grpc-web+proto"}, content=b"")
        assert web.status_code in (405, 415)
    assert not shop.calls.count


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/api/v1/products", "no-cache"),
        ("/api/v1/products/abc", "no-cache"),
        ("/api/v1/orders", "no-store"),
        ("/api/v1/orders/abc", "no-store"),
        ("/api/v1/carts/abc", "no-store"),
        ("/api/v1/carts:mine", "no-store"),
    ],
)
async def test_orders_and_carts_are_not_stored_by_caches(http: httpx.AsyncClient, path: str, policy: str) -> None:
    assert (await http.get(path)).headers["cache-control"] == policy
    assert (await http.get(f"{path}?bogus=1")).headers["cache-control"] == "no-store", "an error"


async def test_retry_info_becomes_a_retry_after_header(http: httpx.AsyncClient) -> None:
    for answer, seconds in (
        (await http.get("/api/v1/products/busy"), "2"),
        (await http.post("/api/v1/products", json={"name": "flaky"}), "1"),
    ):
        assert answer.status_code in (429, 503)
        assert answer.headers["retry-after"] == seconds


async def test_failed_filter_script_refuses_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy would let a request pass whose script failed."""
    shutil.copytree(SOURCE, tmp_path, dirs_exist_ok=True)
    script = tmp_path / "requests.lua"
    start = "local function decide(headers)\n"
    assert start in script.read_text()
    script.write_text(script.read_text().replace(start, start + "  error('broken')\n"))
    monkeypatch.setattr("local.edge.SOURCE", tmp_path)
    async with edge() as running, httpx.AsyncClient(base_url=running.url, timeout=5) as http:
        error = refused(await http.post("/api/v1/orders/abc:cancel", headers=SITE), 500, 13)
        assert error["message"] == "internal error"
        assert not running.calls.count


async def test_access_log_has_the_original_method_and_path(shop: Edge, http: httpx.AsyncClient) -> None:
    requests = [
        ("GET", "/api/v1/products/logged"),
        ("HEAD", "/api/v1/products/logged"),
        ("PATCH", "/api/v1/products/logged"),
        ("POST", "/api/v1/orders/logged:cancel"),
        ("POST", "/api/v1/carts/logged:checkout"),
        ("GET", "/api/v1/orders/logged/status/stream"),
    ]
    before = len(await shop.logged("logged", 0))
    for method, path in requests:
        await http.request(method, path, content=b"{}" if method in ("PATCH", "POST") else b"", headers=JSON)
    logged = await shop.logged("logged", before + len(requests))
    assert [(each["method"], each["path"]) for each in logged[before:]] == requests
