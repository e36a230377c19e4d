"""What one client can take of the edge has limits: streams, bodies, headers and health watches."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RemoteSettingsChanged
from h2.settings import SettingCodes
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from sse.config import Limits
from tests.support.edge import Edge, edge, edge_fixture
from tests.support.rest import Rest
from tests.support.sidecar import sidecar

in_module = pytest.mark.asyncio(loop_scope="module")


shop = edge_fixture()


@in_module
async def test_http2_connection_allows_128_streams(shop: Edge) -> None:
    async with shop.connection() as (reader, writer), asyncio.timeout(5):
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        writer.write(h2.data_to_send())
        while True:
            for event in h2.receive_data(await reader.read(65_536)):
                if isinstance(event, RemoteSettingsChanged):
                    assert event.changed_settings[SettingCodes.MAX_CONCURRENT_STREAMS].new_value == 128
                    return


def _largest_product() -> str:
    """Returns a product whose texts are as long as allowed, of the characters that take most bytes in JSON."""
    character = "\N{GRINNING FACE}"
    texts = {"name": 200, "variant": 100, "description": 10_000, "category": 100, "imageUri": 2_000}
    product = {name: character * length for name, length in texts.items()}
    return json.dumps({**product, "slug": "s" * 100, "sku": "s" * 64, "price": {"currencyCode": "EUR", "units": "1"}})


@in_module
async def test_largest_valid_body_passes_and_larger_one_fails(shop: Edge) -> None:
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=shop.url, timeout=10, headers=headers) as http:
        body = _largest_product()
        assert len(body) > 149_000
        assert (await http.post("/api/v1/products", content=body)).status_code == 200
        error = Rest.refused(await http.post("/api/v1/products", content=body + " " * 20_000), 413, 3)
        assert error["message"] == "the body is larger than 160 KiB"


@in_module
async def test_oversized_grpc_message_is_refused(shop: Edge) -> None:
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = order_pb2_grpc.OrderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateOrder(order_pb2.CreateOrderRequest(notes="x" * 170_000))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the body is larger than 160 KiB"


KIB = [8, 12, 15, 20, 31, 40]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge_and_order() -> AsyncIterator[tuple[Edge, str]]:
    """Yields the edge before a real sidecar, and the id of an order to follow."""
    async with sidecar() as running, edge(sse_http_port=running.sidecar.http_port) as shop:
        yield shop, running.logs.place("PLACED", "CANCELLED")


@in_module
@pytest.mark.parametrize("kib", KIB)
async def test_header_size_limit_is_the_same_everywhere(edge_and_order: tuple[Edge, str], kib: int) -> None:
    """A gateway in front may add large cookies and tokens. REST, streams and gRPC must have the same limit for them."""
    shop, order_id = edge_and_order
    cookie = "a" * (kib * 1024)
    paths = ("/api/v1/orders?pageSize=1", "/api/v1/products/abc", f"/api/orders/stream?order_id={order_id}")
    for http2 in (False, True):
        async with httpx.AsyncClient(base_url=shop.url, http1=not http2, http2=http2, timeout=5) as http:
            for path in paths:
                answer = await http.get(path, headers={"cookie": cookie, "accept": "text/event-stream"})
                if kib < 32:
                    assert answer.status_code == 200, (path, answer.text)
                else:
                    Rest.refused(answer, 431, 3)
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = product_pb2_grpc.ProductServiceStub(channel)
        call = stub.GetProduct(product_pb2.GetProductRequest(id="abc"), metadata=(("cookie", cookie),))
        if kib < 32:
            assert (await call).id == "abc"
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "the headers are larger than 32 KiB or more than 100"


@in_module
@pytest.mark.parametrize(("number", "status"), [(90, 200), (120, 431), (250, 431)])
async def test_number_of_headers_has_a_limit(shop: Edge, number: int, status: int) -> None:
    async with httpx.AsyncClient(base_url=shop.url, timeout=5) as http:
        answer = await http.get("/api/v1/products/abc", headers={f"x-{each}": "1" for each in range(number)})
    assert answer.status_code == status


async def test_health_watches_do_not_block_health_checks() -> None:
    two = "- {max_requests: 2048, max_pending_requests: 2048, retry_budget: *retries}"
    async with (
        edge(rewrites={two: two.replace("max_requests: 2048", "max_requests: 1")}) as shop,
        grpc.aio.insecure_channel(shop.target) as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Watch(health_pb2.HealthCheckRequest()).read()
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_watches_per_address_have_a_limit() -> None:
    """A client cannot forge its address to get more of them."""
    async with sidecar(limits=Limits(streams_per_client=2)) as running:
        port = running.sidecar.grpc_port
        async with edge(sse_grpc_port=port) as shop, grpc.aio.insecure_channel(shop.target) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(service="sse")) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            forged = (("x-envoy-external-address", "203.0.113.9"), ("x-forwarded-for", "203.0.113.9"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Watch(health_pb2.HealthCheckRequest(service="sse"), metadata=forged).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details() == "too many streams of this caller are open"
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub
            with pytest.raises(grpc.aio.AioRpcError, match="too many streams"):
                await reflection(channel).ServerReflectionInfo(iter([])).read()
