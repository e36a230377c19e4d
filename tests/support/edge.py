"""The real edge before services that only echo: what is tested is Envoy's configuration."""

import asyncio
import contextlib
import json
import math
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc, stock_pb2, stock_pb2_grpc

from local.edge import EdgeSettings, write
from local.shop import envoy_binary
from runtime import errors, reflection
from runtime.guard import Guarded
from runtime.server import OPTIONS

PRODUCT = "shop.product.v1.ProductService"
ORDER = "shop.order.v1.OrderService"

HUGE = 3_500_000
"""Characters in the description of the product `huge`."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Calls:
    """What the services were asked: how often, and with which metadata the last time."""

    count: Counter[str] = field(default_factory=Counter)
    metadata: dict[str, str] = field(default_factory=dict)
    seconds_left: float = math.inf
    checks: dict[str, health.aio.HealthServicer] = field(default_factory=dict)
    """What each service says of itself, by its name."""

    def note(self, name: str, context: Context) -> None:
        self.count[name] += 1
        self.metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        left = context.time_remaining()
        self.seconds_left = math.inf if left is None else left


class Product(product_pb2_grpc.ProductServiceServicer):
    """Answers what it was asked, or fails as the product's id says."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def GetProduct(self, request: product_pb2.GetProductRequest, context: Context) -> product_pb2.Product:
        self.calls.note(f"GetProduct {request.id}", context)
        match request.id:
            case "missing":
                raise errors.not_found("PRODUCT_NOT_FOUND", "there is no such product", id="missing")
            case "malformed":
                raise errors.invalid_argument([("id", "must be a UUID")])
            case "busy":
                raise errors.resource_exhausted("too many calls wait", 1.5)
            case "late":
                raise errors.query_timeout("the database took too long")
            case "large":
                return product_pb2.Product(id="large", description="x" * 100_000)
            case "huge":
                return product_pb2.Product(description="x" * HUGE)
            case "slow":
                await asyncio.sleep(2)
            case "flaky" if self.calls.count["GetProduct flaky"] < 3:
                raise errors.unavailable("try again")
        await context.send_initial_metadata((("etag", '"7"'),))
        return product_pb2.Product(id=request.id)

    async def ListProducts(
        self, request: product_pb2.ListProductsRequest, context: Context
    ) -> product_pb2.ListProductsResponse:
        self.calls.note("ListProducts", context)
        return product_pb2.ListProductsResponse(products=[product_pb2.Product(name=request.search)])

    async def BatchGetProducts(
        self, request: product_pb2.BatchGetProductsRequest, context: Context
    ) -> product_pb2.BatchGetProductsResponse:
        return product_pb2.BatchGetProductsResponse(products=[product_pb2.Product(id=each) for each in request.ids])

    async def CreateProduct(self, request: product_pb2.CreateProductRequest, context: Context) -> product_pb2.Product:
        self.calls.note(f"CreateProduct {request.product.name}", context)
        if request.product.name == "flaky":
            raise errors.unavailable("try again")
        return request.product

    async def UpdateProduct(self, request: product_pb2.UpdateProductRequest, context: Context) -> product_pb2.Product:
        return request.product

    async def DeleteProduct(self, request: product_pb2.DeleteProductRequest, context: Context) -> product_pb2.Product:
        return product_pb2.Product(id=request.id)

    async def ListCategories(
        self, request: product_pb2.ListCategoriesRequest, context: Context
    ) -> product_pb2.ListCategoriesResponse:
        self.calls.note("ListCategories", context)
        return product_pb2.ListCategoriesResponse()


class Stock(stock_pb2_grpc.StockServiceServicer):
    """Is there, so that only the edge can be the one who refuses it."""

    async def ReleaseReservation(
        self, request: stock_pb2.ReleaseReservationRequest, context: Context
    ) -> stock_pb2.Reservation:
        return stock_pb2.Reservation()


class Order(order_pb2_grpc.OrderServiceServicer):
    """Answers what it was asked."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def CreateOrder(self, request: order_pb2.CreateOrderRequest, context: Context) -> order_pb2.Order:
        self.calls.note("CreateOrder", context)
        return order_pb2.Order(notes=request.notes)

    async def ListOrders(self, request: order_pb2.ListOrdersRequest, context: Context) -> order_pb2.ListOrdersResponse:
        self.calls.note("ListOrders", context)
        return order_pb2.ListOrdersResponse()

    async def GetOrder(self, request: order_pb2.GetOrderRequest, context: Context) -> order_pb2.Order:
        self.calls.note("GetOrder", context)
        return order_pb2.Order(id=request.id, status=order_pb2.Order.PLACED)

    async def CancelOrder(self, request: order_pb2.CancelOrderRequest, context: Context) -> order_pb2.Order:
        self.calls.note("CancelOrder", context)
        return order_pb2.Order(id=request.id)

    async def StreamOrderStatus(
        self, request: order_pb2.StreamOrderStatusRequest, context: Context
    ) -> AsyncIterator[order_pb2.OrderStatusEvent]:
        for version in (1, 2):
            yield order_pb2.OrderStatusEvent(order_id=request.order_id, version=version)
        if request.order_id == "endless":
            await asyncio.Event().wait()


async def _follow(request: web.Request) -> web.StreamResponse:
    """A stream of one event, which names the request's headers; `order_id=cut` breaks off before it answers."""
    if request.query.get("order_id") == "cut":
        assert request.transport
        request.transport.abort()
    stream = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    await stream.prepare(request)
    await stream.write(b"data: " + json.dumps({**request.headers, "path": request.path}).encode() + b"\n\n")
    return stream


@dataclass
class Edge:
    """A running Envoy."""

    url: str
    admin: str
    settings: EdgeSettings
    log: Path
    pid: int
    calls: Calls = field(default_factory=Calls)

    @property
    def target(self) -> str:
        return self.url.partition("://")[2]

    def access_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    async def logged(self, part: str, entries: int) -> list[dict[str, Any]]:
        """What the access log has on paths with a part, once it is so many entries: Envoy writes it now and then."""
        async with asyncio.timeout(5):
            while len(found := [each for each in self.access_log() if part in (each["path"] or "")]) < entries:
                await asyncio.sleep(0.05)
        return found


Rewrites = Mapping[str, str]
"""Texts of Envoy's configuration, each of which must be there, and what takes its place: a shorter time, as a rule."""


@contextmanager
def envoy(settings: EdgeSettings, *options: str, rewrites: Rewrites | None = None) -> Iterator[Edge]:
    """Runs Envoy on free ports until the end of the block: at loopback, or everywhere if the settings say `[::]`. The
    folder of the settings must be writable."""
    listen = "[::]:0" if settings.listen.startswith("[::]") else "127.0.0.1:0"
    bootstrap = write(replace(settings, listen=listen, admin_port=0))
    for old, new in (rewrites or {}).items():
        text = bootstrap.read_text()
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        bootstrap.write_text(text.replace(old, new))
    log, admin_file = settings.files / "log", settings.files / "admin"
    command = [str(envoy_binary()), "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *command,
                *options,
                "-l",
                "warning",
                "--file-flush-interval-msec",
                "50",
                "--admin-address-path",
                str(admin_file),
            ],
            stdout=output,
            stderr=output,
        )
        try:
            admin = f"http://{_eventually(process, log, admin_file.read_text)}"
            listeners = _eventually(process, log, lambda: _listeners(admin))
            scheme = "https" if settings.tls else "http"
            yield Edge(f"{scheme}://127.0.0.1:{listeners}", admin, settings, log, process.pid)
        finally:
            process.terminate()
            process.wait(10)


def _listeners(admin: str) -> str:
    listening = httpx.get(f"{admin}/listeners?format=json").json()["listener_statuses"]
    ready = httpx.get(f"{admin}/ready")
    return str(listening[0]["local_address"]["socket_address"]["port_value"]) if ready.status_code == 200 else ""


def _eventually(process: subprocess.Popen[bytes], log: Path, look: Any) -> str:
    for _ in range(200):
        with contextlib.suppress(OSError, httpx.HTTPError, LookupError):
            if found := look():
                return str(found)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            break
    raise AssertionError(f"Envoy did not start: {log.read_text()}")


async def _serve(stack: AsyncExitStack, calls: Calls, names: tuple[str, ...], *add: Any) -> int:
    server = grpc.aio.server(options=OPTIONS)
    checks = health.aio.HealthServicer()
    if add:
        calls.checks[names[0]] = checks
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    for register, servicer in add:
        register(servicer, Guarded(server))
    reflection.add_to_server(server, (*names, health.SERVICE_NAME))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return port


@asynccontextmanager
async def edge(*options: str, **settings: Any) -> AsyncIterator[Edge]:
    """The edge before echoing services, until the end of the block. `options` are Envoy's; `settings` those of
    EdgeSettings, and `rewrites`, as Rewrites says."""
    calls = Calls()
    rewrites: Rewrites | None = settings.pop("rewrites", None)
    async with AsyncExitStack() as stack:
        # Not all of their methods are written, which type checkers take for abstract classes.
        servicers: Any = {"product": Product, "stock": Stock, "order": Order}
        product = await _serve(
            stack,
            calls,
            (PRODUCT,),
            (product_pb2_grpc.add_ProductServiceServicer_to_server, servicers["product"](calls)),
            (stock_pb2_grpc.add_StockServiceServicer_to_server, servicers["stock"]()),
        )
        order = await _serve(
            stack, calls, (ORDER,), (order_pb2_grpc.add_OrderServiceServicer_to_server, servicers["order"](calls))
        )
        sse_grpc = await _serve(stack, calls, (PRODUCT, ORDER))
        app = web.Application()
        app.router.add_get("/api/orders/stream{slash:/?}", _follow)
        app.router.add_get("/api/v1/orders/{id}/status/stream{slash:/?}", _follow)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        folder = stack.enter_context(scratch())
        wanted = EdgeSettings(
            files=folder,
            product=f"127.0.0.1:{product}",
            order=f"localhost:{order}",
            sse_http_port=runner.addresses[0][1],
            sse_grpc_port=sse_grpc,
        )
        running = envoy(replace(wanted, **settings), *options, rewrites=rewrites)
        # Envoy asks the services for their health before it is ready: they have to run meanwhile.
        started = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        started.calls = calls
        yield started


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="edge-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
