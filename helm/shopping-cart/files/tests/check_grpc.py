"""Checks gRPC at the edge by reflection, without generated code of the shop."""

import os
import socket
import ssl
from functools import partial
from typing import Any

import grpc
from access import GUESTS, TOKENS
from edge import HOST, PORT, TLS, Failed, eventually, main
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

CARTS = "shop.cart.v1.CartService"
PUBLIC = {"shop.product.v1.ProductService", "shop.order.v1.OrderService", CARTS, "grpc.health.v1.Health"}
INTERNAL = {"shop.product.v1.StockService", "shop.order.v1.StatusFeedService"}
UNKNOWN = "00000000-0000-4000-8000-000000000000"
REFLECTION = os.environ.get("REFLECTION") != "false"


def channel() -> grpc.Channel:
    if not TLS:
        return grpc.insecure_channel(f"{HOST}:{PORT}")
    # Trusts the certificate that the edge presents, under one of its names.
    certificate = ssl.get_server_certificate((HOST, PORT))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    with socket.create_connection((HOST, PORT), timeout=10) as plain, context.wrap_socket(plain) as secure:
        names = (secure.getpeercert() or {}).get("subjectAltName", ())
    name = next((str(value) for kind, value in names if kind == "DNS"), HOST).replace("*", "any")
    options = (("grpc.ssl_target_name_override", name),)
    return grpc.secure_channel(f"{HOST}:{PORT}", grpc.ssl_channel_credentials(certificate.encode()), options)


def check() -> None:
    with channel() as edge:
        for service in ("", *sorted(PUBLIC - {"grpc.health.v1.Health"})):
            eventually(partial(healthy, edge, service))
        print("health: SERVING")
        database = ProtoReflectionDescriptorDatabase(edge)
        if REFLECTION:
            eventually(partial(services, database))
            check_calls(edge, DescriptorPool(database))
        else:
            no_reflection(database)
        for service in sorted(INTERNAL):
            try:
                edge.unary_unary(f"/{service}/Anything")(b"", timeout=10)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                    continue
                raise Failed(f"{service} returned {error.code()}") from None
            raise Failed(f"{service} is reachable")
        print("internal services: not reachable")


def check_calls(edge: grpc.Channel, pool: DescriptorPool) -> None:
    call(edge, pool, "shop.product.v1.ProductService", "ListProducts", {"page_size": 1})
    try:
        call(edge, pool, "shop.order.v1.OrderService", "ListOrders", {"page_size": 1})
    except Failed as failed:
        if not TOKENS or "UNAUTHENTICATED" not in str(failed):
            raise
    else:
        if TOKENS:
            raise Failed("orders are listed without a token")
    if TOKENS:
        check_secret(edge, pool, UNKNOWN, "none")
    else:
        check_cart(edge, pool)
    print("calls: succeeded" + ", but for a list of orders without a token" * TOKENS)


def check_cart(edge: grpc.Channel, pool: DescriptorPool) -> None:
    created = call(edge, pool, CARTS, "CreateCart", {})
    cart, secret = {"id": created["cart"]["id"]}, created["secret"]
    try:
        check_secret(edge, pool, cart["id"], "none")
        if call(edge, pool, CARTS, "GetCart", cart, secret)["etag"] != created["cart"]["etag"]:
            raise Failed("a cart has another etag than it was created with")
    finally:
        call(edge, pool, CARTS, "DeleteCart", cart, secret)
    print("cart: created, read with its secret, deleted")


def check_secret(edge: grpc.Channel, pool: DescriptorPool, cart_id: str, secret: str) -> None:
    try:
        call(edge, pool, CARTS, "GetCart", {"id": cart_id}, secret)
    except Failed as failed:
        if ("NOT_FOUND" if GUESTS or not TOKENS else "UNAUTHENTICATED") not in str(failed):
            raise
    else:
        raise Failed(f"cart {cart_id} was read with a wrong secret")


def no_reflection(database: ProtoReflectionDescriptorDatabase) -> None:
    try:
        database.get_services()
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            print("reflection: off, so no method was called")
            return
        raise Failed(f"reflection: {error.code()} {error.details()}") from None
    raise Failed("reflection is on")


def services(database: ProtoReflectionDescriptorDatabase) -> None:
    try:
        shown = set(database.get_services())
    except grpc.RpcError as error:
        raise Failed(f"reflection: {error.code()} {error.details()}") from None
    if not shown >= PUBLIC or INTERNAL & shown:
        raise Failed(f"reflection shows {sorted(shown)}")
    print("reflection:", *sorted(shown))


def healthy(edge: grpc.Channel, service: str) -> None:
    stub = edge.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    try:
        health = stub(health_pb2.HealthCheckRequest(service=service), timeout=10)
    except grpc.RpcError as error:
        raise Failed(f"the health of {service or 'the shop'}: {error.code()} {error.details()}") from None
    if health.status != health_pb2.HealthCheckResponse.SERVING:
        raise Failed(f"the health of {service or 'the shop'} is {health}")


def call(
    edge: grpc.Channel, pool: DescriptorPool, service: str, method: str, fields: dict[str, Any], secret: str = ""
) -> dict[str, Any]:
    found = pool.FindServiceByName(service).FindMethodByName(method)
    request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
    stub = edge.unary_unary(
        f"/{service}/{method}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    try:
        metadata = (("cart-secret", secret),) if secret else ()
        return MessageToDict(stub(request(**fields), timeout=10, metadata=metadata))
    except grpc.RpcError as error:
        raise Failed(f"{service}/{method}: {error.code()} {error.details()}") from None


main(check)
