"""How many requests a caller may make: a caller is the subject of a verified token, or else an address."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from local.edge import EdgeAuth, EdgeSettings, render
from tests.support.edge import Edge, edge, edge_fixture, http_fixture
from tests.support.eventually import eventually
from tests.support.oidc import AUDIENCE, Issuer, new_key
from tests.support.rest import Rest

in_module = pytest.mark.asyncio(loop_scope="module")

ISSUER = Issuer("https://issuer.example")
AUTH = EdgeAuth(issuer=ISSUER.url, audiences=(AUDIENCE,))
JWKS = json.dumps(ISSUER.jwks())

BURST = 5
SLOW = {f'tokens_per_fill: "{EdgeSettings.rate_limit}", fill_interval: 1s': "tokens_per_fill: 1, fill_interval: 3600s"}
"""A replacement in the configuration of an edge: its buckets do not fill up again."""

PATH = "/api/v1/products/abc"
RPC = "/shop.product.v1.ProductService/GetProduct"
MESSAGE = "too many requests; retry later"

shop = edge_fixture(auth=AUTH, jwks=JWKS, rate_burst=BURST, rewrites=SLOW, trusted_hops=1)
http = http_fixture()

_numbers = count(1)


def new_address() -> str:
    """An address that made no request yet."""
    return f"203.0.113.{next(_numbers)}"


def caller(address: str = "", *, token: str = "") -> dict[str, str]:
    """The headers of a caller behind the trusted proxy."""
    headers = {"x-forwarded-for": address or new_address()}
    return headers | ({"authorization": f"Bearer {token}"} if token else {})


async def exhaust(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Makes as many requests as a caller may who made none yet."""
    statuses = [(await http.get(PATH, headers=headers)).status_code for _ in range(BURST)]
    assert 429 not in statuses


async def is_limited(http: httpx.AsyncClient, headers: dict[str, str]) -> bool:
    return (await http.get(PATH, headers=headers)).status_code == 429


@in_module
async def test_too_many_requests_get_429(http: httpx.AsyncClient, shop: Edge) -> None:
    headers = caller()
    await exhaust(http, headers)
    shop.calls.count.clear()
    for method, path in (("GET", PATH), ("POST", "/api/v1/orders"), ("PUT", PATH), ("GET", "/"), ("GET", "/nothing")):
        answer = await http.request(method, path, headers=headers, json=None if method == "GET" else {})
        error = Rest.refused(answer, 429, 8)
        assert error["message"] == MESSAGE
        assert error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]
        assert answer.headers["retry-after"] == "1"
    head = await http.head(PATH, headers=headers)
    assert (head.status_code, head.content) == (429, b"")
    assert await shop.stat("callers.http_local_rate_limit.rate_limited") >= 6
    assert set(shop.calls.count) <= {"jwks"}


@in_module
async def test_too_many_grpc_calls_are_resource_exhausted(http: httpx.AsyncClient, shop: Edge) -> None:
    headers = caller()
    await exhaust(http, headers)
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = product_pb2_grpc.ProductServiceStub(channel)
        call = stub.GetProduct(product_pb2.GetProductRequest(id="abc"), metadata=tuple(headers.items()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = caught.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        sent: dict[str, Any] = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(sent["grpc-status-details-bin"])
        info = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert (status.code, status.message, info.retry_delay.seconds) == (8, error.details(), 1)
        assert (status.message, sent["retry-after"]) == (MESSAGE, "1")
    web = await http.post(RPC, content=b"\0" * 5, headers={"content-type": "application/grpc-web", **headers})
    Rest.refused(web, 429, 8)


@in_module
async def test_too_many_event_streams_are_retried(http: httpx.AsyncClient) -> None:
    """An EventSource would give up after a 429. Other clients get one."""
    headers = caller()
    await exhaust(http, headers)
    path = "/api/orders/stream?order_id=abc"
    answer = await http.get(path, headers={"accept": "text/event-stream", **headers})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.text.startswith("retry: ")
    Rest.refused(await http.get(path, headers=headers), 429, 8)


@in_module
async def test_health_checks_are_not_limited(http: httpx.AsyncClient, shop: Edge) -> None:
    headers = caller()
    await exhaust(http, headers)
    async with grpc.aio.insecure_channel(shop.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(BURST + 1):
            assert (await http.get("/healthz", headers=headers)).status_code == 200
            await health.Check(health_pb2.HealthCheckRequest(), metadata=tuple(headers.items()))


@in_module
async def test_each_address_has_its_own_limit(http: httpx.AsyncClient) -> None:
    """The last address is the one that the trusted proxy saw; what a client writes before it opens no new bucket."""
    first, second = new_address(), new_address()
    await exhaust(http, caller(first))
    assert await is_limited(http, caller(first))
    assert await is_limited(http, caller(f"{new_address()}, {first}"))
    await exhaust(http, caller(second))


@in_module
async def test_ipv6_addresses_count_by_network(http: httpx.AsyncClient) -> None:
    await exhaust(http, caller("2001:db8:0:1::1"))
    assert await is_limited(http, caller("2001:db8:0:1:ffff::2"))
    await exhaust(http, caller("2001:db8:0:2::1"))


@in_module
async def test_subject_of_a_token_counts_instead_of_the_address(http: httpx.AsyncClient) -> None:
    """Everybody in an office has one address, and somebody who travels has many."""
    office = new_address()
    await exhaust(http, caller(office, token=ISSUER.token("ada")))
    assert await is_limited(http, caller(new_address(), token=ISSUER.token("ada", staff=True)))
    await exhaust(http, caller(office, token=ISSUER.token("bob")))
    await exhaust(http, caller(office))
    assert await is_limited(http, caller(office))
    await exhaust(http, caller(office, token=ISSUER.token("-x")))


@in_module
async def test_unverified_tokens_count_for_the_address(http: httpx.AsyncClient) -> None:
    """So that nobody gets a new limit by a subject that they invent."""
    address = new_address()
    makers: list[Callable[[int], str]] = [
        lambda n: ISSUER.foreign_token(f"forged-{n}"),
        lambda n: ISSUER.token(f"old-{n}", ttl=-60),
        lambda n: ISSUER.token(f"unknown-{n}", key=new_key()),
        lambda n: f"x{n}",
    ]
    for n in range(BURST):
        token = makers[n % len(makers)](n)
        assert not await is_limited(http, caller(address, token=token))
    for n, make in enumerate(makers):
        assert await is_limited(http, caller(address, token=make(n)))
    assert await is_limited(http, caller(address))


@in_module
async def test_payload_headers_open_no_new_bucket(http: httpx.AsyncClient) -> None:
    address = new_address()
    await exhaust(http, caller(address))
    names = ("x-jwt-payload", "x-jwt-claim-sub", "sub", "subject", "x-shop-caller", "x-envoy-external-address")
    for name in (*names, "cart-secret", "order-ticket"):
        assert await is_limited(http, {name: "somebody-else", **caller(address)})


async def test_forwarded_address_is_ignored_without_a_trusted_proxy() -> None:
    async with (
        edge(rate_burst=BURST, rewrites=SLOW) as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        for _ in range(BURST):
            assert not await is_limited(http, caller())
        assert await is_limited(http, caller())
        local = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(base_url=running.url, transport=local) as other:
            await exhaust(other, {})


async def test_bucket_fills_up_again() -> None:
    async with edge(rate_limit=1, rate_burst=1) as running, httpx.AsyncClient(base_url=running.url) as http:
        await eventually(lambda: is_limited(http, {}), 5)

        async def is_served() -> bool:
            return not await is_limited(http, {})

        await eventually(is_served, 5)


async def test_more_callers_than_buckets_are_served() -> None:
    few = {"max_dynamic_descriptors: 10000": "max_dynamic_descriptors: 2"}
    async with (
        edge(rate_burst=BURST, rewrites=SLOW | few, trusted_hops=1) as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        for _ in range(20):
            assert not await is_limited(http, caller())
        address = new_address()
        await exhaust(http, caller(address))
        assert await is_limited(http, caller(address))
        assert "warning" not in running.log.read_text()


async def test_limit_can_be_switched_off() -> None:
    async with (
        edge(rate_limit=0, rate_burst=1) as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        for _ in range(20):
            assert not await is_limited(http, {})


SETTINGS = EdgeSettings(files=Path(), product="product:50052", order="order:50053", sse_http_port=1, sse_grpc_port=2)


@pytest.mark.parametrize(("rate", "burst"), [(-1, 10), (10, 0)])
def test_unusable_limit_is_refused(rate: int, burst: int) -> None:
    with pytest.raises(ValueError, match="rate_"):
        render(replace(SETTINGS, rate_limit=rate, rate_burst=burst))
