"""Carts at the edge: how REST reaches them, and that a secret stays a secret."""

import json
from typing import Any

import grpc
import httpx
import pytest
from shop.cart.v1 import cart_pb2, cart_pb2_grpc

from tests.support.edge import Edge, edge_fixture, http_fixture
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

refused = Rest.refused

SECRET = "not-to-be-seen"


shop = edge_fixture()
http = http_fixture("HTTP/1.1", "HTTP/2")


CALLS: list[tuple[str, str, dict[str, Any] | None, dict[str, Any]]] = [
    ("POST", "/api/v1/carts", {}, {"cart": {"id": "new"}, "secret": "hidden"}),
    ("POST", "/api/v1/carts", None, {"cart": {"id": "new"}, "secret": "hidden"}),
    ("GET", "/api/v1/carts/abc", None, {"id": "abc"}),
    ("GET", "/api/v1/carts:mine", None, {"id": "mine"}),
    ("POST", "/api/v1/carts:merge", {"cartId": "abc", "secret": "s"}, {"id": "abc"}),
    (
        "POST",
        "/api/v1/carts/abc:add",
        {"productId": "p", "quantity": 2},
        {"items": [{"productId": "p", "quantity": 2}]},
    ),
    (
        "POST",
        "/api/v1/carts/abc:set",
        {"productId": "p", "quantity": 0},
        {"items": [{"productId": "p", "quantity": 0}]},
    ),
    ("POST", "/api/v1/carts/abc:set", {"productId": "p", "etag": "7"}, {"etag": "7"}),
    ("POST", "/api/v1/carts/abc:clear", {}, {"id": "abc"}),
    ("POST", "/api/v1/carts/abc:checkout", {"notes": "x"}, {"id": "abc", "notes": "x"}),
    ("DELETE", "/api/v1/carts/abc?etag=7", None, {}),
]


def contains(found: Any, expected: Any) -> bool:
    """Whether a JSON value has what is expected of it, and maybe more."""
    if isinstance(expected, dict):
        return all(name in found and contains(found[name], value) for name, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(contains, found, expected))
    return bool(found == expected)


@pytest.mark.parametrize(("method", "path", "body", "expected"), CALLS)
async def test_rest_calls_reach_carts(
    shop: Edge, http: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    """With the headers that carts read."""
    sent = {"cart-secret": SECRET, "if-match": '"7"', "idempotency-key": "k"}
    answer = await http.request(method, path, json=body, headers=sent)
    assert answer.status_code == 200, answer.text
    assert contains(answer.json(), expected), answer.text
    assert sent.items() <= shop.calls.metadata.items()
    assert 5 < shop.calls.seconds_left < 10.1


async def test_etag_of_a_delete_is_in_its_query(shop: Edge, http: httpx.AsyncClient) -> None:
    shop.calls.count.clear()
    await http.delete("/api/v1/carts/abc?etag=7")
    await http.delete("/api/v1/carts/abc?etag=")
    await http.delete("/api/v1/carts/abc")
    assert shop.calls.count == {"DeleteCart abc 7": 1, "DeleteCart abc ": 2}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/carts/abc?id=zz", None),
        ("GET", f"/api/v1/carts/abc?secret={SECRET}", None),
        ("GET", f"/api/v1/carts/abc?cart-secret={SECRET}", None),
        ("GET", f"/api/v1/carts:mine?secret={SECRET}", None),
        ("POST", f"/api/v1/carts:merge?secret={SECRET}", {"cartId": "abc"}),
        ("POST", "/api/v1/carts/abc:add?quantity=9", {"productId": "p"}),
        ("POST", "/api/v1/carts/abc:add", {"id": "zz"}),
        ("POST", "/api/v1/carts/abc:checkout?expectedTotal.units=1", {}),
        ("DELETE", "/api/v1/carts/abc?id=zz", None),
        ("DELETE", "/api/v1/carts/abc?etag=7&etag=8", None),
    ],
)
async def test_url_has_neither_a_secret_nor_another_id(
    shop: Edge, http: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    shop.calls.count.clear()
    error = refused(await http.request(method, path, json=body), 400, 3)
    assert SECRET not in json.dumps(error)
    assert not shop.calls.count


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/v1/carts", "POST, OPTIONS"),
        ("POST", "/api/v1/carts:mine", "GET, HEAD, OPTIONS"),
        ("GET", "/api/v1/carts:merge", "POST, OPTIONS"),
        ("GET", "/api/v1/carts/abc:add", "POST, OPTIONS"),
        ("PATCH", "/api/v1/carts/abc", "GET, HEAD, DELETE, OPTIONS"),
    ],
)
async def test_other_methods_are_refused(http: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    answer = await http.request(method, path, json={} if method != "GET" else None)
    refused(answer, 405, 12)
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    "path", ["/api/v1/carts/abc:zap", "/api/v1/carts:zap", "/api/v1/carts/abc/items", "/api/v1/cart"]
)
async def test_unknown_path_of_carts_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST"):
        refused(await http.request(method, path, json={} if method == "POST" else None), 404, 5)


async def test_only_reads_of_carts_are_retried(shop: Edge, http: httpx.AsyncClient) -> None:
    """An add without a request_id would count twice."""
    shop.calls.count.clear()
    assert (await http.get("/api/v1/carts/flaky")).status_code == 200
    refused(await http.post("/api/v1/carts/flaky:add", json={"productId": "p", "quantity": 1}), 503, 14)
    assert shop.calls.count == {"GetCart flaky": 3, "AddCartItem flaky": 1}


async def test_carts_are_reached_over_grpc(shop: Edge) -> None:
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = cart_pb2_grpc.CartServiceStub(channel)
        metadata = (("cart-secret", SECRET),)
        added = await stub.AddCartItem(cart_pb2.AddCartItemRequest(id="abc", quantity=2), metadata=metadata)
        assert (added.id, added.items[0].quantity) == ("abc", 2)
        assert shop.calls.metadata["cart-secret"] == SECRET
        assert (await stub.GetMyCart(cart_pb2.GetMyCartRequest())).id == "mine"


async def test_secret_is_not_logged(shop: Edge, http: httpx.AsyncClient) -> None:
    """Whatever becomes of the request: found, refused by the service, refused by the edge."""
    before = len(await shop.logged("carts", 0))
    for path in ("/api/v1/carts/abc", "/api/v1/carts/abc?bogus=1", "/api/v1/carts/abc:zap", "/api/v1/carts/abc:add"):
        await http.get(path, headers={"cart-secret": SECRET})
    await http.post(f"/api/v1/carts:merge?secret={SECRET}", json={"cartId": "abc", "secret": SECRET})
    await shop.logged("carts", before + 5)
    assert SECRET not in shop.log.read_text()
