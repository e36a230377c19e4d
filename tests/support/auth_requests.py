"""A request for each method of the shop that succeeds for whoever may call it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.type.money_pb2 import Money
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2, status_feed_pb2
from shop.product.v1 import product_pb2, stock_pb2

Kind = Literal["product", "deleted product", "PLACED", "PROCESSED", "DELIVERED", "cart", "guest's cart"]
"""What a request changes: a product, an order with this status, the caller's cart, or any guest's."""


@dataclass(frozen=True)
class Subject:
    """What a request is about."""

    product: str
    order: str
    authorization: str = ""
    """What a client of the sidecar has sent, for AuthorizeStream."""
    cart: str = ""
    etag: str = ""
    """The etag of the cart."""
    guests_cart: str = ""
    """A cart to merge."""
    secret: str = ""
    """Its secret."""


@dataclass(frozen=True)
class Sample:
    """A request."""

    make: Callable[[Subject], Message]
    changes: Kind | None = None
    """What it changes, so that it succeeds only once."""


def new_product() -> product_pb2.Product:
    price = Money(currency_code="EUR", units=12, nanos=500_000_000)
    # With a code of its own: those that are made from names differ in three letters only.
    code = uuid4().hex[:12]
    return product_pb2.Product(name=f"Matrix {code}", sku=f"MATRIX-{code}", stock=1_000, price=price)


def new_order(product: str) -> order_pb2.CreateOrderRequest:
    return order_pb2.CreateOrderRequest(
        items=[order_pb2.CreateOrderItem(product_id=product, quantity=1)],
        customer=order_pb2.Customer(name="Ada Lovelace", email="ada@example.com", phone="+44 20 7946 0000"),
        shipping_address="12 St James's Square, London",
    )


def _hold(subject: Subject) -> stock_pb2.ReserveStockRequest:
    items = [stock_pb2.StockItem(product_id=subject.product, quantity=1)]
    return stock_pb2.ReserveStockRequest(reservation_id=str(uuid4()), items=items, ttl=Duration(seconds=1))


def _update(subject: Subject) -> product_pb2.UpdateProductRequest:
    product = product_pb2.Product(id=subject.product, variant=uuid4().hex)
    return product_pb2.UpdateProductRequest(product=product, update_mask=FieldMask(paths=["variant"]))


def _authorize(subject: Subject) -> status_feed_pb2.AuthorizeStreamRequest:
    sent = [subject.authorization] if subject.authorization else []
    return status_feed_pb2.AuthorizeStreamRequest(order_id=subject.order, authorization=sent)


def _follow(subject: Subject) -> status_feed_pb2.FollowOrdersRequest:
    return status_feed_pb2.FollowOrdersRequest(
        follow=[status_feed_pb2.FollowedOrder(order_id=subject.order, follow_id=1)]
    )


def _list_services(_: Subject) -> reflection_pb2.ServerReflectionRequest:
    return reflection_pb2.ServerReflectionRequest(list_services="*")


_PRODUCT: Mapping[str, Sample] = {
    "CreateProduct": Sample(lambda _: product_pb2.CreateProductRequest(product=new_product())),
    "GetProduct": Sample(lambda subject: product_pb2.GetProductRequest(id=subject.product)),
    "BatchGetProducts": Sample(lambda subject: product_pb2.BatchGetProductsRequest(ids=[subject.product])),
    "ListProducts": Sample(lambda _: product_pb2.ListProductsRequest(page_size=1)),
    "UpdateProduct": Sample(_update, "product"),
    "DeleteProduct": Sample(lambda subject: product_pb2.DeleteProductRequest(id=subject.product), "product"),
    "UndeleteProduct": Sample(
        lambda subject: product_pb2.UndeleteProductRequest(id=subject.product), "deleted product"
    ),
    "ListCategories": Sample(lambda _: product_pb2.ListCategoriesRequest(page_size=1)),
    "AdjustStock": Sample(lambda subject: product_pb2.AdjustStockRequest(id=subject.product, delta=1), "product"),
}

_ORDER: Mapping[str, Sample] = {
    "CreateOrder": Sample(lambda subject: new_order(subject.product)),
    "GetOrder": Sample(lambda subject: order_pb2.GetOrderRequest(id=subject.order)),
    "ListOrders": Sample(lambda _: order_pb2.ListOrdersRequest(page_size=1)),
    "ProcessOrder": Sample(lambda subject: order_pb2.ProcessOrderRequest(id=subject.order), "PLACED"),
    "DeliverOrder": Sample(lambda subject: order_pb2.DeliverOrderRequest(id=subject.order), "PROCESSED"),
    "ReceiveOrder": Sample(lambda subject: order_pb2.ReceiveOrderRequest(id=subject.order), "DELIVERED"),
    "CancelOrder": Sample(lambda subject: order_pb2.CancelOrderRequest(id=subject.order), "PLACED"),
    "StreamOrderStatus": Sample(lambda subject: order_pb2.StreamOrderStatusRequest(order_id=subject.order)),
    "CreateOrderTicket": Sample(lambda subject: order_pb2.CreateOrderTicketRequest(id=subject.order)),
}

_CART: Mapping[str, Sample] = {
    "CreateCart": Sample(lambda _: cart_pb2.CreateCartRequest()),
    # Each of these finds the cart of before: a customer has one only, which another request may have deleted.
    "GetCart": Sample(lambda subject: cart_pb2.GetCartRequest(id=subject.cart), "cart"),
    "GetMyCart": Sample(lambda _: cart_pb2.GetMyCartRequest()),
    "AddCartItem": Sample(
        lambda subject: cart_pb2.AddCartItemRequest(id=subject.cart, product_id=subject.product, quantity=1), "cart"
    ),
    "SetCartItem": Sample(
        lambda subject: cart_pb2.SetCartItemRequest(id=subject.cart, product_id=subject.product, quantity=2), "cart"
    ),
    "ClearCart": Sample(lambda subject: cart_pb2.ClearCartRequest(id=subject.cart), "cart"),
    "DeleteCart": Sample(lambda subject: cart_pb2.DeleteCartRequest(id=subject.cart), "cart"),
    "MergeCart": Sample(
        lambda subject: cart_pb2.MergeCartRequest(cart_id=subject.guests_cart, secret=subject.secret), "guest's cart"
    ),
    "CheckoutCart": Sample(lambda subject: cart_pb2.CheckoutCartRequest(id=subject.cart, etag=subject.etag), "cart"),
}

_STOCK: Mapping[str, Sample] = {
    "ReserveStock": Sample(_hold),
    # An order's reservation has the id of the order. It is confirmed already, and stays so.
    "ConfirmReservation": Sample(lambda subject: stock_pb2.ConfirmReservationRequest(reservation_id=subject.order)),
    "ReleaseReservation": Sample(lambda _: stock_pb2.ReleaseReservationRequest(reservation_id=str(uuid4()))),
    "BatchReserveStock": Sample(lambda subject: stock_pb2.BatchReserveStockRequest(requests=[_hold(subject)])),
    "BatchConfirmReservations": Sample(
        lambda subject: stock_pb2.BatchConfirmReservationsRequest(reservation_ids=[subject.order])
    ),
    "BatchReleaseReservations": Sample(
        lambda _: stock_pb2.BatchReleaseReservationsRequest(reservation_ids=[str(uuid4())])
    ),
    "ListExpiredReservations": Sample(lambda _: stock_pb2.ListExpiredReservationsRequest()),
    "BatchGetReservations": Sample(
        lambda subject: stock_pb2.BatchGetReservationsRequest(reservation_ids=[subject.order])
    ),
    "BatchGetOffers": Sample(lambda subject: stock_pb2.BatchGetOffersRequest(product_ids=[subject.product])),
    "ListReservations": Sample(lambda _: stock_pb2.ListReservationsRequest()),
    "PairDatabases": Sample(lambda _: stock_pb2.PairDatabasesRequest(order_database_id=str(uuid4()), read_only=True)),
}

_FEED: Mapping[str, Sample] = {"FollowOrders": Sample(_follow), "AuthorizeStream": Sample(_authorize)}

_HEALTH: Mapping[str, Sample] = {
    "Check": Sample(lambda _: health_pb2.HealthCheckRequest()),
    "Watch": Sample(lambda _: health_pb2.HealthCheckRequest()),
}

SAMPLES: Mapping[str, Sample] = {
    f"{service}.{name}": sample
    for service, samples in {
        "shop.cart.v1.CartService": _CART,
        "shop.product.v1.ProductService": _PRODUCT,
        "shop.product.v1.StockService": _STOCK,
        "shop.order.v1.OrderService": _ORDER,
        "shop.order.v1.StatusFeedService": _FEED,
        "grpc.health.v1.Health": _HEALTH,
        "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": Sample(_list_services)},
        "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": Sample(_list_services)},
    }.items()
    for name, sample in samples.items()
}
"""A request for each method, by its full name. The tests fail for a method without one."""
