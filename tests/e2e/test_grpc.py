"""Native gRPC through the edge and on the services' own ports, with grpcurl as a client that is not ours."""

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from tests.support.locks import until_none_waits
from tests.support.rest import Rest
from tests.support.shop import RunningShop

PUBLIC = {"shop.product.v1.ProductService", "shop.order.v1.OrderService", "grpc.health.v1.Health"}
INTERNAL = {"shop.product.v1.StockService", "shop.order.v1.StatusFeedService"}


def installed(program: str) -> str:
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    assert found, f"{program} comes with the development requirements"
    return found


async def run_program(program: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        installed(program), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode or 0, out.decode(), err.decode()


async def run(*arguments: str) -> tuple[int, str, str]:
    """Grpcurl."""
    return await run_program("grpcurl", "-plaintext", *arguments)


async def call(target: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
    status, out, err = await run("-d", json.dumps(body), target, method)
    assert status == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


async def raw_call(channel: grpc.aio.Channel, method: str) -> Any:
    multicallable: Any = channel.unary_unary(method)
    return await multicallable(b"")


async def test_edge_lists_public_services_only(shop: RunningShop) -> None:
    _, out, err = await run(shop.target, "list")
    assert set(out.split()) >= PUBLIC, err
    assert not set(out.split()) & INTERNAL


async def test_service_ports_list_their_services(shop: RunningShop) -> None:
    assert "shop.product.v1.ProductService" in (await run(shop.product_target, "list"))[1]
    assert "shop.order.v1.OrderService" in (await run(shop.order_target, "list"))[1]


@pytest.mark.parametrize("name", ["", "shop.product.v1.ProductService", "shop.order.v1.OrderService"])
async def test_health_is_serving_at_the_edge(shop: RunningShop, name: str) -> None:
    answer = await call(shop.target, "grpc.health.v1.Health/Check", {"service": name})
    assert answer == {"status": "SERVING"}


async def test_health_is_serving_on_service_ports(shop: RunningShop) -> None:
    for target in (shop.product_target, shop.order_target):
        assert await call(target, "grpc.health.v1.Health/Check", {}) == {"status": "SERVING"}


async def test_every_public_symbol_can_be_described(shop: RunningShop) -> None:
    symbols = ("shop.order.v1.Order", "google.type.Money", "google.rpc.Status", "shop.order.v1.OrderService.GetOrder")
    for symbol in (*PUBLIC, *symbols):
        status, _, err = await run(shop.target, "describe", symbol)
        assert status == 0, err


async def test_descriptions_show_the_limits_of_fields(shop: RunningShop) -> None:
    for target in (shop.target, shop.order_target):
        status, out, err = await run(target, "describe", "shop.order.v1.Customer")
        assert status == 0, err
        assert re.search(r"string name = 1 .*max_len: ?200", out), out


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
async def test_reflection_serves_clients_of_either_version(shop: RunningShop, version: str) -> None:
    """At the edge and at both services; methods are found by their names, which is what ghz asks for."""
    list_orders = ("shop.order.v1.OrderService", "ListOrders")
    list_products = ("shop.product.v1.ProductService", "ListProducts")
    for target, (service, method) in (
        (shop.target, list_orders),
        (shop.target, list_products),
        (shop.order_target, list_orders),
        (shop.product_target, list_products),
    ):
        url = f"http://{target}/{service}/{method}"
        options = ("--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", version)
        status, out, err = await run_program("buf", "curl", *options, "-d", '{"pageSize": 1}', url)
        assert status == 0, err
        assert json.loads(out or "{}").keys() <= {"orders", "products", "nextPageToken"}
        status, out, err = await run(target, "describe", f"{service}.{method}")
        assert f"rpc {method}" in out, err


async def test_internal_service_is_unimplemented_at_the_edge(shop: RunningShop) -> None:
    async with grpc.aio.insecure_channel(shop.target) as channel:
        for service in INTERNAL:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw_call(channel, f"/{service}/Anything")
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_grpcurl_places_and_follows_an_order(shop: RunningShop) -> None:
    price = {"currencyCode": "EUR", "units": "5"}
    product = await call(
        shop.target,
        "shop.product.v1.ProductService/CreateProduct",
        {"product": {"name": "By grpcurl", "price": price, "stock": 1}},
    )
    order = await call(
        shop.target,
        "shop.order.v1.OrderService/CreateOrder",
        {"items": [{"productId": product["id"], "quantity": 1}]},
    )
    assert order["status"] == "PLACED"
    status, _, err = await run(
        "-d", json.dumps({"items": [{"productId": product["id"], "quantity": 1}]}), shop.target,
        "shop.order.v1.OrderService/CreateOrder",
    )  # fmt: skip
    assert status != 0
    assert "FailedPrecondition" in err
    assert "INSUFFICIENT_STOCK" in err
    watching = asyncio.create_task(
        run("-d", json.dumps({"order_id": order["id"]}), shop.target, "shop.order.v1.OrderService/StreamOrderStatus")
    )
    await asyncio.sleep(0.3)
    await call(shop.target, "shop.order.v1.OrderService/CancelOrder", {"id": order["id"]})
    status, out, err = await watching
    assert status == 0, err
    assert out.count('"version"') == 2
    assert "CANCELLED" in out


async def test_caller_deadline_is_kept(shop: RunningShop, rest: Rest) -> None:
    """Also where the database is what takes long: the row is locked."""
    product = (await rest.product())["id"]
    conninfo = shop.shop.postgres.service("product")
    async with (
        await psycopg.AsyncConnection.connect(conninfo) as lock,
        grpc.aio.insecure_channel(shop.target) as channel,
    ):
        await lock.execute("SELECT FROM product WHERE id = %s FOR UPDATE", (product,))
        stub = product_pb2_grpc.ProductServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AdjustStock(product_pb2.AdjustStockRequest(id=product, delta=1), timeout=0.3)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        # Before that, our leaving would let it through.
        await until_none_waits(conninfo, 2)
    assert await rest.stock(product) == 10


async def test_stream_sends_headers_before_the_first_event(shop: RunningShop, rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    async with grpc.aio.insecure_channel(shop.target) as channel:
        stub = order_pb2_grpc.OrderServiceStub(channel)
        stream = stub.StreamOrderStatus(order_pb2.StreamOrderStatusRequest(order_id=order["id"], after_version=1))
        await asyncio.wait_for(stream.initial_metadata(), 5)
        stream.cancel()


async def test_grpc_web_call_succeeds(shop: RunningShop, rest: Rest) -> None:
    body = product_pb2.ListProductsRequest(page_size=1).SerializeToString()
    frame = b"\0" + len(body).to_bytes(4, "big") + body
    answer = await rest.http.post(
        "/shop.product.v1.ProductService/ListProducts",
        content=frame,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert answer.headers["content-type"].startswith("application/grpc-web")
    size = int.from_bytes(answer.content[1:5], "big")
    page = product_pb2.ListProductsResponse.FromString(answer.content[5 : 5 + size])
    assert len(page.products) == 1
    assert b"grpc-status:0" in answer.content[5 + size :].replace(b" ", b"")
