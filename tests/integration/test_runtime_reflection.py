"""Reflection in both versions: all that a server knows is found by name; other names are errors in the response."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse

from runtime import reflection
from runtime.config import Env, ServerConfig
from runtime.server import Server
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.process import Telemetry
from sse.edge import ORDER, PRODUCT, public_descriptors
from tests.support.access import open_gate

METHOD = "ServerReflectionInfo"
VERSIONS = {"v1": reflection.V1, "v1alpha": reflection.V1ALPHA}

SYMBOLS = {
    "shop.order.v1.OrderService": "shop/order/v1/order.proto",
    "shop.order.v1.OrderService.GetOrder": "shop/order/v1/order.proto",
    "shop.order.v1.OrderService.StreamOrderStatus": "shop/order/v1/order.proto",
    "shop.order.v1.Order": "shop/order/v1/order.proto",
    "shop.order.v1.Order.Status": "shop/order/v1/order.proto",
    "shop.order.v1.Order.PLACED": "shop/order/v1/order.proto",
    "shop.order.v1.Order.Status.PLACED": "shop/order/v1/order.proto",
    "shop.order.v1.Order.id": "shop/order/v1/order.proto",
    "google.api.http": "google/api/annotations.proto",
    "google.rpc.Status": "google/rpc/status.proto",
    "google.rpc.ErrorInfo.reason": "google/rpc/error_details.proto",
    "grpc.health.v1.Health.Check": "grpc_health/v1/health.proto",
    "grpc.reflection.v1.ServerReflection": "grpc/reflection/v1/reflection.proto",
    "grpc.reflection.v1.ServerReflection.ServerReflectionInfo": "grpc/reflection/v1/reflection.proto",
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": "grpc_reflection/v1alpha/reflection.proto",
}

UNKNOWN = [
    "", ".", "x", "shop", "shop.order.v1", "shop.order.v1.OrderService.", "shop.order.v1.OrderService.Nothing",
    "shop.order.v1.OrderService.GetOrder.x", "shop.order.v1.Order.Status.SHIPPED", ".shop.order.v1.Order", "\0",
    "x" * 10_000,
]  # fmt: skip

Ask = Callable[..., Awaitable[list[ServerReflectionResponse]]]


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return VERSIONS[name]


@pytest.fixture(params=["edge", "service"])
async def ask(request: pytest.FixtureRequest, version: str, free_port: int) -> AsyncIterator[Ask]:
    """Sends several queries to a server over one stream: to the edge, which knows only what is public, or a service."""
    env = Env({"LISTEN_HOST": "127.0.0.1", "SHUTDOWN_DELAY": "0", "SHUTDOWN_GRACE": "1"})
    telemetry = Telemetry(TelemetryConfig.from_env(env), "test")
    descriptors = public_descriptors() if request.param == "edge" else None
    server = Server(
        ServerConfig.from_env(env, grpc_port=free_port), telemetry, open_gate(), [], [ORDER], descriptors=descriptors
    )
    await server.start()

    async def asked(*requests: ServerReflectionRequest) -> list[ServerReflectionResponse]:
        call: Any = channel.stream_stream(
            f"/{version}/{METHOD}",
            ServerReflectionRequest.SerializeToString,
            ServerReflectionResponse.FromString,
        )
        return [each async for each in call(iter(requests), timeout=10)]

    async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
        yield asked
    await server.stop()


def built(answer: ServerReflectionResponse) -> DescriptorPool:
    """Returns a pool of the files in a response, which need no other files."""
    files = {
        file.name: file
        for file in map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
    }
    pool = DescriptorPool()

    def add(name: str) -> None:
        if file := files.pop(name, None):
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    for name in list(files):
        add(name)
    return pool


def first_file(answer: ServerReflectionResponse) -> str:
    assert answer.WhichOneof("message_response") == "file_descriptor_response", answer
    return FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0]).name


async def test_services_are_listed(ask: Ask) -> None:
    (answer,) = await ask(ServerReflectionRequest(list_services="*"))
    assert [each.name for each in answer.list_services_response.service] == sorted(
        [ORDER, "grpc.health.v1.Health", *VERSIONS.values()]
    )


async def test_every_symbol_is_found(ask: Ask) -> None:
    requests = [ServerReflectionRequest(host="shop", file_containing_symbol=symbol) for symbol in SYMBOLS]
    answers = await ask(*requests)
    assert {
        request.file_containing_symbol: first_file(answer) for request, answer in zip(requests, answers, strict=True)
    } == SYMBOLS
    assert [each.original_request for each in answers] == requests
    assert {each.valid_host for each in answers} == {"shop"}


async def test_response_contains_all_dependencies(ask: Ask) -> None:
    """A client builds its messages from the files of one response."""
    answers = await ask(
        ServerReflectionRequest(file_containing_symbol="shop.order.v1.OrderService.GetOrder"),
        ServerReflectionRequest(file_by_filename="shop/product/v1/product.proto"),
        ServerReflectionRequest(file_by_filename="grpc/reflection/v1/reflection.proto"),
    )
    assert built(answers[0]).FindServiceByName(ORDER).methods_by_name["GetOrder"].output_type.name == "Order"
    assert built(answers[1]).FindServiceByName(PRODUCT).methods_by_name["ListCategories"]
    method = built(answers[2]).FindServiceByName(reflection.V1).methods_by_name[METHOD]
    assert method.input_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"


async def test_every_public_file_is_found_by_its_name(ask: Ask) -> None:
    names = [
        "google/rpc/status.proto",
        "google/rpc/error_details.proto",
        "google/type/money.proto",
        "google/api/http.proto",
    ]
    assert [
        first_file(each) for each in await ask(*(ServerReflectionRequest(file_by_filename=name) for name in names))
    ] == names


async def test_extensions_are_found(ask: Ask) -> None:
    options = "google.protobuf.MethodOptions"
    numbers, http, none = await ask(
        ServerReflectionRequest(all_extension_numbers_of_type=options),
        ServerReflectionRequest(
            file_containing_extension=ExtensionRequest(containing_type=options, extension_number=72295728)
        ),
        ServerReflectionRequest(
            file_containing_extension=ExtensionRequest(containing_type=options, extension_number=1)
        ),
    )
    assert 72295728 in numbers.all_extension_numbers_response.extension_number
    assert first_file(http) == "google/api/annotations.proto"
    assert none.error_response.error_code == 5


async def test_unknown_symbol_does_not_end_the_stream(ask: Ask) -> None:
    requests = [
        *(ServerReflectionRequest(file_containing_symbol=symbol) for symbol in UNKNOWN),
        ServerReflectionRequest(file_by_filename="shop/order/v2/order.proto"),
        ServerReflectionRequest(all_extension_numbers_of_type="shop.Nothing"),
        ServerReflectionRequest(file_containing_extension=ExtensionRequest(containing_type="shop.Nothing")),
        ServerReflectionRequest(list_services=""),
    ]
    *unknown, last = await ask(*requests)
    assert {each.error_response.error_code for each in unknown} == {grpc.StatusCode.NOT_FOUND.value[0]}
    assert all(len(each.error_response.error_message) < 300 for each in unknown)
    assert last.list_services_response.service


async def test_request_without_a_query_is_refused(ask: Ask) -> None:
    (answer,) = await ask(ServerReflectionRequest())
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_malformed_request_names_no_exception(free_port: int) -> None:
    env = Env({"LISTEN_HOST": "127.0.0.1", "SHUTDOWN_DELAY": "0", "SHUTDOWN_GRACE": "1"})
    server = Server(
        ServerConfig.from_env(env, grpc_port=free_port),
        Telemetry(TelemetryConfig.from_env(env), "test"),
        open_gate(),
        [],
    )
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
            call: Any = channel.stream_stream(f"/{reflection.V1}/{METHOD}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(iter([b"\xff"]), timeout=10).read()
    finally:
        await server.stop()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cannot decode the request" in (caught.value.details() or "")


def test_edge_describes_nothing_internal() -> None:
    pool = public_descriptors()
    for name in ("shop/product/v1/stock.proto", "shop/order/v1/status_feed.proto"):
        with pytest.raises(KeyError):
            pool.FindFileByName(name)
