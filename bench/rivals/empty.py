"""The least that a Python service behind the same Envoy can cost: responses from memory, on bare grpc.aio, no database.

python -m bench.rivals.empty PRODUCT_PORT ORDER_PORT
"""

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from bench.data import DESCRIPTION
from local.settings import LOOPBACK


def _product(number: int) -> product_pb2.Product:
    product = product_pb2.Product(
        id=f"00000000-0000-4000-8000-{number:012}",
        name=f"Oak chair {number}",
        slug=f"oak-chair-{number}",
        sku=f"OAK-{number}",
        description=DESCRIPTION,
        category="Home",
        stock=1_000,
        star=4.5,
        etag="1",
    )
    product.price.currency_code = "EUR"
    product.price.units = 79
    product.create_time.GetCurrentTime()
    product.update_time.CopyFrom(product.create_time)
    return product


def _order(number: int) -> order_pb2.Order:
    order = order_pb2.Order(
        id=f"00000000-0000-4000-8000-{number:012}",
        number=f"INV-20260101-{number:06}",
        status=order_pb2.Order.PLACED,
        items=[order_pb2.OrderItem(product_id=f"00000000-0000-4000-8000-{number:012}", quantity=1, name="Oak chair")],
        shipping_address="12 St James's Square, London",
        payment_method="CARD",
        etag="1",
    )
    order.items[0].unit_price.currency_code = order.total.currency_code = "EUR"
    order.items[0].unit_price.units = order.total.units = 79
    order.customer.name = "Ada Lovelace"
    order.customer.email = "ada@example.com"
    order.create_time.GetCurrentTime()
    order.update_time.CopyFrom(order.create_time)
    return order


def _unary(response: Message, request: type[Message]) -> Any:
    async def respond(message: Message, context: Any) -> Message:
        return response

    return grpc.unary_unary_rpc_method_handler(respond, request.FromString, type(response).SerializeToString)


def _handlers() -> dict[str, dict[str, Any]]:
    """Returns the handlers of each service's methods."""
    product, order = _product(1), _order(1)
    products = product_pb2.ListProductsResponse(products=[_product(number) for number in range(20)])
    orders = order_pb2.ListOrdersResponse(orders=[_order(number) for number in range(20)])
    return {
        "shop.product.v1.ProductService": {
            "GetProduct": _unary(product, product_pb2.GetProductRequest),
            "ListProducts": _unary(products, product_pb2.ListProductsRequest),
        },
        "shop.order.v1.OrderService": {
            "GetOrder": _unary(order, order_pb2.GetOrderRequest),
            "ListOrders": _unary(orders, order_pb2.ListOrdersRequest),
            "CreateOrder": _unary(order, order_pb2.CreateOrderRequest),
            "CancelOrder": _unary(order, order_pb2.CancelOrderRequest),
        },
    }


async def serve(ports: Sequence[int]) -> None:
    """Serves each service on one of these loopback ports until the process ends."""
    servers = []
    for port, (name, methods) in zip(ports, _handlers().items(), strict=True):
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        healthy = health.aio.HealthServicer()
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        server.add_insecure_port(f"{LOOPBACK}:{port}")
        await server.start()
        servers.append(server)
    await servers[0].wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.empty")
    parser.add_argument("ports", metavar="PORT", type=int, nargs="+")
    asyncio.run(serve(parser.parse_args().ports))
