"""What the edge can have besides: TLS, origins of browsers, tracing."""

import asyncio
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
import pytest_asyncio
import yaml
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from shop.product.v1 import product_pb2, product_pb2_grpc

from local.edge import SOURCE, TEMPLATES, EdgeAuth, EdgeSettings, otlp_address, render, template, values, write
from local.shop import envoy_binary
from tests.support.edge import Edge, edge
from tests.support.rest import Rest

in_module = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://shop.example"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    async def find(self, trace: str) -> Span:
        """The edge's span of a trace, once it is here."""
        async with asyncio.timeout(10):
            while True:
                for span in self.spans:
                    if span.trace_id.hex() == trace:
                        return span
                await asyncio.sleep(0.05)

    async def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: object,
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    kept = Collector()
    server = grpc.aio.server()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield kept, f"http://127.0.0.1:{port}"
    await server.stop(None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(certificate: Path, collector: tuple[Collector, str]) -> AsyncIterator[Edge]:
    async with edge(tls=certificate, cors_origins=(ORIGIN,), otlp_endpoint=collector[1], trusted_hops=1) as running:
        yield replace(running, url=running.url.replace("127.0.0.1", "localhost"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(shop: Edge, certificate: Path) -> AsyncIterator[httpx.AsyncClient]:
    trust = ssl.create_default_context(cafile=str(certificate / "tls.crt"))
    async with httpx.AsyncClient(base_url=shop.url, verify=trust, timeout=5) as client:
        yield client


@in_module
async def test_tls_offers_http2_to_browsers(shop: Edge, certificate: Path) -> None:
    """Over HTTP/1.1 a browser opens no more than six streams to a host."""
    trust = ssl.create_default_context(cafile=str(certificate / "tls.crt"))
    trust.set_alpn_protocols(["h2", "http/1.1"])

    def negotiated() -> str | None:
        host, _, port = shop.target.partition(":")
        with (
            socket.create_connection((host, int(port)), 5) as plain,
            trust.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            return wrapped.selected_alpn_protocol()

    assert await asyncio.to_thread(negotiated) == "h2"


@in_module
async def test_rest_and_native_grpc_work_over_tls(shop: Edge, http: httpx.AsyncClient, certificate: Path) -> None:
    assert (await http.get("/api/v1/products/abc")).json()["id"] == "abc"
    trust = grpc.ssl_channel_credentials((certificate / "tls.crt").read_bytes())
    async with grpc.aio.secure_channel(shop.target, trust) as channel:
        stub = product_pb2_grpc.ProductServiceStub(channel)
        assert (await stub.GetProduct(product_pb2.GetProductRequest(id="abc"))).id == "abc"


@in_module
@pytest.mark.parametrize(
    "path", ["/api/v1/products", "/api/orders/stream", "/shop.product.v1.ProductService/GetProduct"]
)
async def test_preflight_of_allowed_origin_passes(http: httpx.AsyncClient, path: str) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-grpc-web",
    }
    answer = await http.options(path, headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "x-grpc-web" in answer.headers["access-control-allow-headers"]


@in_module
async def test_allowed_origin_may_read_responses(http: httpx.AsyncClient) -> None:
    for path in ("/api/v1/products/abc", "/api/v1/products/missing", "/api/v1/products?bogus=1", "/api/orders/stream"):
        answer = await http.get(path, headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN, path


@in_module
async def test_other_origin_may_not_read_responses(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/products/abc", headers={"origin": "https://shop.example.evil"})
    assert "access-control-allow-origin" not in answer.headers


@in_module
async def test_trusted_proxy_sets_the_client_address(http: httpx.AsyncClient) -> None:
    """The address that it added counts, not what its client sent; a private one too."""
    answer = await http.get("/api/orders/stream", headers={"x-forwarded-for": "203.0.113.9, 10.9.9.9"})
    seen = {name.lower(): value for name, value in json.loads(answer.text[6:]).items()}
    assert seen["x-envoy-external-address"] == "10.9.9.9"


@in_module
async def test_trace_continues_through_the_edge(
    shop: Edge, http: httpx.AsyncClient, collector: tuple[Collector, str]
) -> None:
    sent = f"00-{TRACE}-b7ad6b7169203331-01"
    await http.get("/api/v1/products/abc", headers={"traceparent": sent})
    passed = shop.calls.metadata["traceparent"]
    assert passed.startswith(f"00-{TRACE}-")
    assert passed != sent
    await collector[0].find(TRACE)


TRACED = [
    ("GET", "/api/v1/orders?customerEmail=ada%40example.com"),
    ("GET", "/api/v1/orders?customerEmail=ada%40example.com&status=PLACED"),
    ("HEAD", "/api/v1/orders?customerEmail=ada%40example.com"),
    ("GET", "/api/v1/orders/abc?customerEmail=ada%40example.com"),
    ("PATCH", "/api/v1/products/abc?updateMask=ada%40example.com"),
    ("GET", "/nothing?ada%40example.com"),
    ("POST", "/shop.order.v1.OrderService/GetOrder?ada%40example.com"),
]


@in_module
async def test_spans_have_the_method_but_no_query(http: httpx.AsyncClient, collector: tuple[Collector, str]) -> None:
    """A query can hold an e-mail address."""
    sent = {uuid4().hex: request for request in TRACED}
    for trace, (method, path) in sent.items():
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "content-type": "application/json"}
        await http.request(method, path, headers=headers)
    for trace, (method, path) in sent.items():
        span = await collector[0].find(trace)
        attributes = [(each.key, each.value.string_value) for each in span.attributes]
        assert len(dict(attributes)) == len(attributes), "each once"
        assert dict(attributes)["http.method"] == method
        assert dict(attributes)["http.url"].endswith(path.partition("?")[0])
    for text in ("ada@", "ada%40", "example.com"):
        assert text not in str(collector[0].spans)


@in_module
async def test_hsts_is_sent_over_tls_for_this_host_only(http: httpx.AsyncClient) -> None:
    for path in ("/", "/api/v1/products", "/api/v1/products/missing", "/api/orders/stream"):
        assert (await http.get(path)).headers["strict-transport-security"] == "max-age=31536000"


async def test_unknown_host_names_get_421() -> None:
    """A page of another site can point a name of its own at this machine, and would be the same origin then."""
    async with edge(hosts=("localhost", "*.localhost", "127.0.0.1", "[::1]")) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=5) as http:
            for host in ("localhost", "localhost:8080", "shop.localhost:1", "127.0.0.1:8080", "[::1]:8080"):
                assert (await http.get("/api/v1/products", headers={"host": host})).status_code == 200, host
            running.calls.count.clear()
            for host in ("evil.example", "localhost.evil.example:8080", "127.0.0.1.nip.io", "10.0.0.1"):
                for path in (
                    "/",
                    "/api/v1/products",
                    "/api/orders/stream",
                    "/shop.product.v1.ProductService/GetProduct",
                ):
                    Rest.refused(await http.get(path, headers={"host": host}), 421, 3)
            assert not running.calls.count
        async with grpc.aio.insecure_channel(running.target) as channel:
            stub = product_pb2_grpc.ProductServiceStub(channel)
            assert (await stub.GetProduct(product_pb2.GetProductRequest(id="abc"))).id == "abc"


SETTINGS = EdgeSettings(files=Path(), product="product:50052", order="[::1]:50053", sse_http_port=1, sse_grpc_port=2)


def test_config_parts_are_valid_yaml() -> None:
    """Editors, linters and readers need nothing but YAML. No file uses an anchor of another one."""
    for path in (SOURCE / "config").iterdir():
        assert yaml.safe_load(path.read_text()), path.name
    for name in TEMPLATES:
        assert yaml.safe_load(template(name))


def test_envoy_accepts_every_combination_of_settings(tmp_path: Path, certificate: Path) -> None:
    auth = EdgeAuth(issuer='https://issuer.example/"shop"', audiences=("a", "b"), leeway=0)
    choices = (None, certificate), ((), (ORIGIN, "*")), ("", "http://collector:4317"), (None, auth), (0, 200)
    for tls, origins, endpoint, tokens, rate in product(*choices):
        settings = replace(
            SETTINGS,
            files=tmp_path,
            tls=tls,
            cors_origins=origins,
            otlp_endpoint=endpoint,
            auth=tokens,
            rate_limit=rate,
            max_connection_age=rate,
        )
        if tls:
            settings = replace(settings, hosts=("localhost", "[::1]"))
        if tokens:
            settings = replace(settings, issuer="issuer:8082", metrics_port=9465, debug_port=9466)
        command = [str(envoy_binary()), "--mode", "validate", "-l", "warning", "-c", str(write(settings))]
        checked = subprocess.run(command, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        # It asks for the keys of tokens even then. Everything else would be a warning of what is deprecated.
        assert not [line for line in checked.stderr.splitlines() if "/jwks" not in line]


def test_disabled_option_leaves_no_configuration() -> None:
    text = render(replace(SETTINGS, rate_limit=0, max_connection_age=0))
    words = (
        "cors.v3.CorsPolicy",
        "issuer",
        "otlp",
        "tls.v3.DownstreamTlsContext",
        "if TLS",
        "jwt",
        "token",
        "max_connection_duration",
        "ratelimit",
        "metrics",
        "debug",
    )
    assert not [word for word in words if word in text]


def test_every_template_variable_is_used() -> None:
    """A name without a value fails in `render`; a value without a name would be a setting that does nothing."""
    text = "".join(template(name) for name in TEMPLATES)
    assert {name for name in values(SETTINGS) if f"${{{name}}}" in text} == set(values(SETTINGS))


@pytest.mark.parametrize("endpoint", ["collector:4317", "https://collector:4317", "http://collector:4318/v1/traces"])
def test_unusable_otlp_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="OTLP endpoint"):
        otlp_address(endpoint)
