"""Tokens at the edge: which it refuses by itself, which it leaves to the services, and what it tells the client."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from local.edge import EdgeAuth
from tests.support.edge import Edge, edge, edge_fixture, http_fixture
from tests.support.eventually import eventually
from tests.support.oidc import AUDIENCE, Issuer, new_key
from tests.support.rest import Rest

in_module = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://shop.example"
ISSUER = Issuer(
    "https://issuer.example", keys=[new_key(each) for each in ("RS256", "PS256", "EdDSA", "ES384", "ES256")]
)
AUTH = EdgeAuth(issuer=ISSUER.url, audiences=("other", AUDIENCE), leeway=30)
JWKS = json.dumps(ISSUER.jwks())
CHALLENGE = 'Bearer realm="shop", error="invalid_token"'

REFUSED: dict[str, tuple[str, Callable[[], str]]] = {
    "expired": ("TOKEN_EXPIRED", lambda: ISSUER.token(ttl=-60)),
    "not yet valid": ("TOKEN_INVALID", lambda: ISSUER.token(nbf=2**31)),
    "no time of expiry": ("TOKEN_INVALID", lambda: ISSUER.token(without=("exp",))),
    "another issuer": ("TOKEN_INVALID", lambda: ISSUER.token(iss="https://other.example")),
    "no issuer": ("TOKEN_INVALID", lambda: ISSUER.token(without=("iss",))),
    "another audience": ("TOKEN_INVALID", lambda: ISSUER.token(aud=["a", "b"])),
    "no audience": ("TOKEN_INVALID", lambda: ISSUER.token(without=("aud",))),
    "another key": ("TOKEN_INVALID", ISSUER.foreign_token),
    "no algorithm": ("TOKEN_INVALID", ISSUER.unsigned_token),
    "no token": ("TOKEN_INVALID", lambda: "x"),
    "no JSON": ("TOKEN_INVALID", lambda: "a.b.c"),
    # In Base64 it matters where the name of the key begins.
    "another key, longer header": ("TOKEN_INVALID", lambda: ISSUER.foreign_token(header={"typ": "JWT+"})),
    "another key, even longer header": ("TOKEN_INVALID", lambda: ISSUER.foreign_token(header={"typ": "JWT++"})),
    "changed": ("TOKEN_INVALID", lambda: ISSUER.token().replace(".", ".e30", 1)),
}
"""Tokens that are certainly bad, with the reason of the refusal."""

LEFT: dict[str, Callable[[], str]] = {
    "an unknown key": lambda: "Bearer " + ISSUER.token(key=new_key("RS256")),
    "a new key without a name": lambda: "Bearer " + ISSUER.token(key=new_key("ES256", kid=None)),
    "the public key as a secret": lambda: "Bearer " + ISSUER.confused_token(),
    "another scheme": lambda: "Basic YWRhOmFkYQ==",
    "another spelling": lambda: "bearer " + ISSUER.token(),
    "no token": lambda: "Bearer",
    "a token in the wrong place": lambda: "Basic x, Bearer " + ISSUER.token(),
    "expired, within the leeway": lambda: "Bearer " + ISSUER.token(ttl=-10),
}
"""What is the services' to decide: the key may be new, and the edge does not read the header as strictly."""


shop = edge_fixture(auth=AUTH, jwks=JWKS, cors_origins=(ORIGIN,))
http = http_fixture()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(shop: Edge) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(shop.target) as opened:
        yield opened


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


REQUESTS = [
    ("GET", "/api/v1/products/abc"),
    ("GET", "/api/v1/orders?pageSize=1&status=PLACED"),
    ("POST", "/api/v1/orders"),
    ("PATCH", "/api/v1/products/abc"),
    ("GET", "/api/orders/stream?order_id=abc"),
    ("GET", "/api/v1/orders/abc/status/stream"),
    ("GET", "/"),
]


@in_module
@pytest.mark.parametrize("kind", REFUSED)
async def test_bad_token_gets_401(shop: Edge, http: httpx.AsyncClient, kind: str) -> None:
    reason, token = REFUSED[kind]
    shop.calls.count.clear()
    for method, path in REQUESTS:
        headers = bearer(token()) | {"accept": "text/event-stream"}
        answer = await http.request(method, path, headers=headers, json=None if method == "GET" else {})
        error = Rest.refused(answer, 401, 16, reason=reason)
        assert error["details"][0]["domain"] == "shop"
        assert error["message"].startswith("the token ")
        assert "%" not in error["message"]
        assert not error["message"].endswith(": -")
        assert answer.headers["www-authenticate"] == CHALLENGE
    assert set(shop.calls.count) <= {"jwks"}


@in_module
async def test_head_with_a_bad_token_gets_401_without_a_body(http: httpx.AsyncClient) -> None:
    for path in ("/api/v1/products/abc", "/api/orders/stream?order_id=abc", "/"):
        answer = await http.head(path, headers=bearer("x"))
        assert (answer.status_code, answer.content) == (401, b"")
        assert answer.headers["www-authenticate"] == CHALLENGE


def _native_calls(channel: grpc.aio.Channel, metadata: Any) -> list[Callable[[], Awaitable[object]]]:
    products, orders = product_pb2_grpc.ProductServiceStub(channel), order_pb2_grpc.OrderServiceStub(channel)
    health: Any = health_pb2_grpc.HealthStub(channel)
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub
    follow = order_pb2.StreamOrderStatusRequest(order_id="abc")
    return [
        lambda: products.GetProduct(product_pb2.GetProductRequest(id="abc"), metadata=metadata),
        lambda: orders.StreamOrderStatus(follow, metadata=metadata).read(),
        lambda: health.Check(health_pb2.HealthCheckRequest(), metadata=metadata),
        lambda: health.Watch(health_pb2.HealthCheckRequest(), metadata=metadata).read(),
        # Nothing is sent on it: grpcio calls a message that meets the refusal INTERNAL.
        lambda: reflection(channel).ServerReflectionInfo(iter([]), metadata=metadata).read(),
    ]


@in_module
@pytest.mark.parametrize("kind", ["expired", "another issuer"])
async def test_bad_token_is_unauthenticated_over_grpc(channel: grpc.aio.Channel, kind: str) -> None:
    """Every method refuses it, those that need no token too."""
    reason, token = REFUSED[kind]
    for call in _native_calls(channel, tuple(bearer(token()).items())):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call()
        error = caught.value
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        sent: dict[str, Any] = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(sent["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (status.code, status.message, info.reason, info.domain) == (16, error.details(), reason, "shop")
        assert sent["www-authenticate"] == CHALLENGE


@in_module
@pytest.mark.parametrize("kind", ["application/grpc-web", "application/grpc-web-text", "Application/gRPC-Web; x=1"])
async def test_bad_token_is_unauthenticated_over_grpc_web(http: httpx.AsyncClient, kind: str) -> None:
    answer = await http.post(
        "/shop.product.v1.ProductService/GetProduct", content=b"\0" * 5, headers={"content-type": kind, **bearer("x")}
    )
    assert (answer.status_code, answer.headers["grpc-status"]) == (401, "16")
    assert answer.headers["www-authenticate"] == CHALLENGE


@in_module
@pytest.mark.parametrize("kind", LEFT)
async def test_service_decides_what_the_edge_cannot(shop: Edge, http: httpx.AsyncClient, kind: str) -> None:
    sent = LEFT[kind]()
    assert (await http.get("/api/v1/products/abc", headers={"authorization": sent})).status_code == 200
    assert shop.calls.metadata["authorization"] == sent
    stream = await http.get("/api/orders/stream?order_id=abc", headers={"authorization": sent})
    assert json.loads(stream.text[6:])["Authorization"] == sent


@in_module
@pytest.mark.parametrize("key", ISSUER.keys, ids=lambda key: key.algorithm)
async def test_good_token_reaches_the_service(shop: Edge, http: httpx.AsyncClient, key: Any) -> None:
    token = ISSUER.token(key=key)
    assert (await http.get("/api/v1/products/abc", headers=bearer(token))).status_code == 200
    assert shop.calls.metadata["authorization"] == f"Bearer {token}"


@in_module
async def test_token_is_verified_once(shop: Edge, http: httpx.AsyncClient) -> None:
    """Also one with many claims: some issuers list all roles."""
    token = ISSUER.token(roles=[f"role-{number}" for number in range(600)])
    assert len(token) > 8_000
    hits = "http.edge.jwt_authn.jwt_cache_hit"
    before = await shop.stat(hits)
    for _ in range(5):
        assert (await http.get("/api/v1/products/abc", headers=bearer(token))).status_code == 200
    assert await shop.stat(hits) == before + 4


@in_module
async def test_token_in_the_url_is_none(http: httpx.AsyncClient) -> None:
    """It would be in logs and histories."""
    path = f"/api/orders/stream?order_id=abc&access_token={ISSUER.token(ttl=-60)}"
    for headers in ({}, bearer(ISSUER.token())):
        answer = await http.get(path, headers={"cookie": "access_token=x", **headers})
        assert (answer.status_code, "www-authenticate" in answer.headers) == (200, False)


@in_module
async def test_public_pages_need_no_token(http: httpx.AsyncClient) -> None:
    for path in ("/", "/healthz"):
        assert (await http.get(path)).status_code == 200
    assert (await http.get("/healthz", headers=bearer("x"))).status_code == 200


@in_module
async def test_refusal_of_a_service_has_a_challenge_too(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/products/private")
    Rest.refused(answer, 401, 16, reason="TOKEN_REQUIRED")
    assert answer.headers["www-authenticate"] == 'Bearer realm="shop"'


@in_module
async def test_pages_of_other_origins_can_read_the_refusal(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/products/abc", headers={"origin": ORIGIN, **bearer("x")})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert "www-authenticate" in answer.headers["access-control-expose-headers"].split(", ")
    asked = {"access-control-request-method": "GET", "access-control-request-headers": "authorization,order-ticket"}
    preflight = await http.options("/api/v1/orders/abc", headers={"origin": ORIGIN, **asked})
    assert {"authorization", "order-ticket"} <= set(preflight.headers["access-control-allow-headers"].split(", "))


@in_module
@pytest.mark.parametrize("path", ["/jwks", "/jwks/", "/x/..//jwks", "/api/orders/stream/../../../jwks"])
async def test_keys_of_the_sidecar_are_not_reachable(shop: Edge, http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code in (404, 405)


@in_module
async def test_clients_cannot_send_internal_headers(shop: Edge, http: httpx.AsyncClient) -> None:
    names = ("x-shop-credential", "X-Shop-Credential", "x_shop_credential", "x-shop-caller", "x-envoy-peer")
    sent: dict[str, str] = dict.fromkeys(names, "forged")
    await http.get("/api/v1/products/abc", headers=sent)
    assert "forged" not in shop.calls.metadata.values()
    stream = await http.get("/api/orders/stream?order_id=abc", headers=sent)
    assert "forged" not in stream.text


@in_module
async def test_access_log_says_why_and_no_secret(shop: Edge, http: httpx.AsyncClient) -> None:
    token = ISSUER.token(ttl=-60)
    for path in ("/api/v1/products/logged", "/api/orders/stream?order_id=logged&ticket=tell-nobody"):
        await http.get(path, headers={**bearer(token), "order-ticket": "tell-nobody"})
    (entry,) = await shop.logged("/products/logged", 1)
    assert (entry["status"], entry["details"]) == (401, "rbac_access_denied_matched_policy[token-expired]")
    for secret in (token.rpartition(".")[2], "tell-nobody", "eyJ"):
        assert secret not in shop.log.read_text()


async def test_rotated_keys_are_fetched() -> None:
    """A provider that goes away then fails nobody whose key is known."""
    issuer = Issuer(ISSUER.url)
    often = {
        "cache_duration: 2s": "cache_duration: 0.1s",
        "failed_refetch_duration: 2s": "failed_refetch_duration: 0.1s",
    }
    async with (
        edge(auth=AUTH, jwks=json.dumps(issuer.jwks()), rewrites=often) as running,
        httpx.AsyncClient(base_url=running.url, timeout=5) as http,
    ):
        old = issuer.keys[0]
        issuer.rotate(keep=False)
        running.calls.jwks = json.dumps(issuer.jwks())

        async def status(token: str) -> int:
            return (await http.get("/api/v1/products/abc", headers=bearer(token))).status_code

        async def is_fetched() -> bool:
            """A bad signature is refused once the key is known."""
            return await status(issuer.foreign_token()) == 401

        await eventually(is_fetched, 5)
        assert await status(issuer.token()) == 200
        assert await status(issuer.token(key=old)) == 200, "the service decides"
        running.calls.jwks = ""
        failed = await running.stat("http.edge.jwt_authn.jwks_fetch_failed")

        async def failed_again() -> bool:
            return await running.stat("http.edge.jwt_authn.jwks_fetch_failed") > failed + 2

        await eventually(failed_again, 5)
        assert (await status(issuer.token()), await status(issuer.foreign_token())) == (200, 401)


async def test_service_decides_while_there_are_no_keys() -> None:
    async with edge(auth=AUTH) as running, httpx.AsyncClient(base_url=running.url, timeout=5) as http:
        for token, expected in ((ISSUER.token(), 200), (ISSUER.foreign_token(), 200), (ISSUER.token(ttl=-60), 401)):
            assert (await http.get("/api/v1/products/abc", headers=bearer(token))).status_code == expected


async def test_edge_without_tokens_ignores_them() -> None:
    async with edge() as running, httpx.AsyncClient(base_url=running.url, timeout=5) as http:
        for token in (ISSUER.token(ttl=-60), "x"):
            assert (await http.get("/api/v1/products/abc", headers=bearer(token))).status_code == 200
        assert running.calls.metadata["authorization"] == "Bearer x"
        assert running.calls.count["jwks"] == 0
