"""Services that answer what they were asked, for tests of what stands before them."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import grpc
from aiohttp import web
from google.protobuf import empty_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from shop.cart.v1 import cart_pb2, cart_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc, stock_pb2, stock_pb2_grpc

from runtime import errors, reflection
from runtime.guard import Guarded
from runtime.server import OPTIONS
from tests.support.access import open_gate

PRODUCT = "shop.product.v1.ProductService"
ORDER = "shop.order.v1.OrderService"
CART = "shop.cart.v1.CartService"

HUGE = 3_500_000
"""Characters in the description of the product `huge`."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Calls:
    """The calls that the services got: how many of each, and the metadata of the last one."""

    count: Counter[str] = field(default_factory=Counter)
    metadata: dict[str, str] = field(default_factory=dict)
    seconds_left: float = math.inf
    checks: dict[str, health.aio.HealthServicer] = field(default_factory=dict)
    """The health that each service reports, by its name."""
    jwks: str = ""
    """The keys of tokens that the sidecar has; empty if none."""

    def record(self, name: str, context: Context) -> None:
        self.count[name] += 1
        self.metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        left = cast("float | None", context.time_remaining())  # its stub lacks the None
        self.seconds_left = math.inf if left is None else left


class Product(product_pb2_grpc.ProductServiceServicer):
    """Returns what was sent, or fails in the way that the product's id or name says."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def GetProduct(self, request: product_pb2.GetProductRequest, context: Context) -> product_pb2.Product:
        self.calls.record(f"GetProduct {request.id}", context)
        match request.id:
            case "missing":
                raise errors.not_found("PRODUCT_NOT_FOUND", "there is no such product", id="missing")
            case "private":
                raise errors.unauthenticated("TOKEN_REQUIRED", "this method needs a token")
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
            case _:
                pass
        await context.send_initial_metadata((("etag", '"7"'),))
        return product_pb2.Product(id=request.id)

    async def ListProducts(
        self, request: product_pb2.ListProductsRequest, context: Context
    ) -> product_pb2.ListProductsResponse:
        self.calls.record("ListProducts", context)
        return product_pb2.ListProductsResponse(products=[product_pb2.Product(name=request.search)])

    async def BatchGetProducts(
        self, request: product_pb2.BatchGetProductsRequest, context: Context
    ) -> product_pb2.BatchGetProductsResponse:
        return product_pb2.BatchGetProductsResponse(products=[product_pb2.Product(id=each) for each in request.ids])

    async def CreateProduct(self, request: product_pb2.CreateProductRequest, context: Context) -> product_pb2.Product:
        self.calls.record(f"CreateProduct {request.product.name}", context)
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
        self.calls.record("ListCategories", context)
        return product_pb2.ListCategoriesResponse()


class Stock(stock_pb2_grpc.StockServiceServicer):
    """An internal service that works, so that only the edge can refuse it."""

    async def ReleaseReservation(
        self, request: stock_pb2.ReleaseReservationRequest, context: Context
    ) -> stock_pb2.Reservation:
        return stock_pb2.Reservation()


class Order(order_pb2_grpc.OrderServiceServicer):
    """Returns what was sent."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def CreateOrder(self, request: order_pb2.CreateOrderRequest, context: Context) -> order_pb2.Order:
        self.calls.record("CreateOrder", context)
        return order_pb2.Order(notes=request.notes)

    async def ListOrders(self, request: order_pb2.ListOrdersRequest, context: Context) -> order_pb2.ListOrdersResponse:
        self.calls.record("ListOrders", context)
        return order_pb2.ListOrdersResponse()

    async def GetOrder(self, request: order_pb2.GetOrderRequest, context: Context) -> order_pb2.Order:
        self.calls.record("GetOrder", context)
        return order_pb2.Order(id=request.id, status=order_pb2.Order.PLACED)

    async def CancelOrder(self, request: order_pb2.CancelOrderRequest, context: Context) -> order_pb2.Order:
        self.calls.record("CancelOrder", context)
        return order_pb2.Order(id=request.id)

    async def StreamOrderStatus(
        self, request: order_pb2.StreamOrderStatusRequest, context: Context
    ) -> AsyncIterator[order_pb2.OrderStatusEvent]:
        for version in (1, 2):
            yield order_pb2.OrderStatusEvent(order_id=request.order_id, version=version)
        if request.order_id == "endless":
            await asyncio.Event().wait()


class Cart(cart_pb2_grpc.CartServiceServicer):
    """Returns what was sent, or fails if the cart's id says so."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def CreateCart(self, request: cart_pb2.CreateCartRequest, context: Context) -> cart_pb2.CreateCartResponse:
        self.calls.record("CreateCart", context)
        return cart_pb2.CreateCartResponse(cart=cart_pb2.Cart(id="new"), secret="hidden")

    async def GetCart(self, request: cart_pb2.GetCartRequest, context: Context) -> cart_pb2.Cart:
        self.calls.record(f"GetCart {request.id}", context)
        if request.id == "flaky" and self.calls.count["GetCart flaky"] < 3:
            raise errors.unavailable("try again")
        return cart_pb2.Cart(id=request.id)

    async def GetMyCart(self, request: cart_pb2.GetMyCartRequest, context: Context) -> cart_pb2.Cart:
        self.calls.record("GetMyCart", context)
        return cart_pb2.Cart(id="mine")

    async def AddCartItem(self, request: cart_pb2.AddCartItemRequest, context: Context) -> cart_pb2.Cart:
        self.calls.record(f"AddCartItem {request.id}", context)
        if request.id == "flaky":
            raise errors.unavailable("try again")
        item = cart_pb2.CartItem(product_id=request.product_id, quantity=request.quantity)
        return cart_pb2.Cart(id=request.id, items=[item])

    async def SetCartItem(self, request: cart_pb2.SetCartItemRequest, context: Context) -> cart_pb2.Cart:
        self.calls.record("SetCartItem", context)
        item = cart_pb2.CartItem(product_id=request.product_id, quantity=request.quantity)
        return cart_pb2.Cart(id=request.id, etag=request.etag, items=[item])

    async def ClearCart(self, request: cart_pb2.ClearCartRequest, context: Context) -> cart_pb2.Cart:
        self.calls.record("ClearCart", context)
        return cart_pb2.Cart(id=request.id, etag=request.etag)

    async def DeleteCart(self, request: cart_pb2.DeleteCartRequest, context: Context) -> empty_pb2.Empty:
        self.calls.record(f"DeleteCart {request.id} {request.etag}", context)
        return empty_pb2.Empty()

    async def MergeCart(self, request: cart_pb2.MergeCartRequest, context: Context) -> cart_pb2.Cart:
        self.calls.record("MergeCart", context)
        return cart_pb2.Cart(id=request.cart_id)

    async def CheckoutCart(self, request: cart_pb2.CheckoutCartRequest, context: Context) -> order_pb2.Order:
        self.calls.record("CheckoutCart", context)
        return order_pb2.Order(id=request.id, notes=request.notes)


async def _follow(request: web.Request) -> web.StreamResponse:
    """Sends one event with the request's headers. `order_id=cut` ends the connection without a response."""
    if request.query.get("order_id") == "cut":
        assert request.transport
        request.transport.abort()
    stream = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    await stream.prepare(request)
    await stream.write(b"data: " + json.dumps({**request.headers, "path": request.path}).encode() + b"\n\n")
    return stream


async def _keys(calls: Calls, request: web.Request) -> web.Response:
    calls.count["jwks"] += 1
    return web.Response(text=calls.jwks, content_type="application/json") if calls.jwks else web.Response(status=503)


async def _serve(stack: AsyncExitStack, calls: Calls, names: tuple[str, ...], *add: Any) -> int:
    server = grpc.aio.server(options=OPTIONS)
    checks = health.aio.HealthServicer()
    if add:
        calls.checks[names[0]] = checks
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    guarded = Guarded(server, open_gate())
    for register, servicer in add:
        register(servicer, guarded)
    reflection.add_to_server(guarded, (*names, health.SERVICE_NAME))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return port


@dataclass(frozen=True)
class EchoServices:
    """The ports of running services, and their calls."""

    product: int
    order: int
    sse_http: int
    sse_grpc: int
    calls: Calls


@asynccontextmanager
async def echo_services(jwks: str = "") -> AsyncIterator[EchoServices]:
    """Runs both services, and what stands for the sidecar, until the end of the block. `jwks` is as in Calls."""
    calls = Calls(jwks=jwks)
    async with AsyncExitStack() as stack:
        # Not all of their methods are written, which type checkers take for abstract classes.
        servicers: Any = {"product": Product, "stock": Stock, "order": Order, "cart": Cart}
        product = await _serve(
            stack,
            calls,
            (PRODUCT,),
            (product_pb2_grpc.add_ProductServiceServicer_to_server, servicers["product"](calls)),
            (stock_pb2_grpc.add_StockServiceServicer_to_server, servicers["stock"]()),
        )
        order = await _serve(
            stack,
            calls,
            (ORDER, CART),
            (order_pb2_grpc.add_OrderServiceServicer_to_server, servicers["order"](calls)),
            (cart_pb2_grpc.add_CartServiceServicer_to_server, servicers["cart"](calls)),
        )
        sse_grpc = await _serve(stack, calls, (PRODUCT, ORDER, CART))
        app = web.Application()
        app.router.add_get("/api/orders/stream{slash:/?}", _follow)
        app.router.add_get("/api/v1/orders/{id}/status/stream{slash:/?}", _follow)
        app.router.add_get("/jwks", partial(_keys, calls))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield EchoServices(product, order, runner.addresses[0][1], sse_grpc, calls)
