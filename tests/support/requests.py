"""The requests of the shop: how each is parsed, and the limits that its proto states."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from buf.validate import validate_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2, stock_pb2

import order.cart.parse
import order.parse
import product.parse
import product.stock_parse
from product.listing import ProductQuery
from runtime import headers

PUBLIC = (
    product_pb2.DESCRIPTOR.services_by_name["ProductService"],
    order_pb2.DESCRIPTOR.services_by_name["OrderService"],
    cart_pb2.DESCRIPTOR.services_by_name["CartService"],
)
INTERNAL = (stock_pb2.DESCRIPTOR.services_by_name["StockService"],)


class NoMetadata:
    """The context of a call without headers."""

    def invocation_metadata(self) -> tuple[()]:
        return ()


def expected_etag(message: Any) -> str:
    return headers.expected_etag(NoMetadata(), message.etag)  # type: ignore[arg-type]  # all that is asked of the context


def etag(message: Any) -> None:
    headers.version_of(expected_etag(message))


def request_id(message: Any) -> None:
    headers.request_key(NoMetadata(), message.request_id)  # type: ignore[arg-type]  # as above


def cart_etag(message: Any) -> None:
    order.cart.parse.etag(expected_etag(message))


PARSERS: dict[type[Message], list[Callable[[Any], Any]]] = {
    product_pb2.CreateProductRequest: [lambda message: product.parse.new_product(message.product), request_id],
    product_pb2.GetProductRequest: [product.parse.product_id],
    product_pb2.BatchGetProductsRequest: [product.parse.batch_ids],
    product_pb2.ListProductsRequest: [
        product.parse.listing,
        lambda message: ProductQuery().cursor(message.page_token),
    ],
    product_pb2.UpdateProductRequest: [product.parse.changes, lambda message: etag(message.product)],
    product_pb2.DeleteProductRequest: [product.parse.product_id, etag],
    product_pb2.UndeleteProductRequest: [product.parse.product_id, etag],
    product_pb2.ListCategoriesRequest: [product.parse.categories],
    product_pb2.AdjustStockRequest: [product.parse.product_id, etag, request_id],
    stock_pb2.ReserveStockRequest: [product.stock_parse.hold],
    stock_pb2.ConfirmReservationRequest: [product.stock_parse.reservation_id],
    stock_pb2.ReleaseReservationRequest: [product.stock_parse.reservation_id],
    stock_pb2.BatchReserveStockRequest: [product.stock_parse.check_batch],
    stock_pb2.BatchConfirmReservationsRequest: [product.stock_parse.check_batch],
    stock_pb2.BatchReleaseReservationsRequest: [product.stock_parse.check_batch],
    stock_pb2.ListExpiredReservationsRequest: [product.stock_parse.expired],
    stock_pb2.BatchGetReservationsRequest: [product.stock_parse.reservation_ids],
    stock_pb2.ListReservationsRequest: [product.stock_parse.reservations],
    stock_pb2.BatchGetOffersRequest: [product.stock_parse.product_ids],
    stock_pb2.PairDatabasesRequest: [product.stock_parse.pair],
    order_pb2.CreateOrderRequest: [order.parse.draft, request_id],
    order_pb2.GetOrderRequest: [order.parse.order_id],
    order_pb2.ListOrdersRequest: [order.parse.listing],
    order_pb2.ProcessOrderRequest: [order.parse.order_id, etag],
    order_pb2.DeliverOrderRequest: [order.parse.order_id, etag],
    order_pb2.ReceiveOrderRequest: [order.parse.order_id, etag],
    order_pb2.CancelOrderRequest: [order.parse.order_id, etag],
    order_pb2.StreamOrderStatusRequest: [order.parse.stream],
    order_pb2.CreateOrderTicketRequest: [order.parse.order_id],
    cart_pb2.CreateCartRequest: [],
    cart_pb2.GetCartRequest: [order.cart.parse.cart_id],
    cart_pb2.GetMyCartRequest: [],
    cart_pb2.AddCartItemRequest: [order.cart.parse.CONSTRAINTS.enforce, request_id],
    cart_pb2.SetCartItemRequest: [order.cart.parse.CONSTRAINTS.enforce, cart_etag],
    cart_pb2.ClearCartRequest: [order.cart.parse.CONSTRAINTS.enforce, cart_etag],
    cart_pb2.DeleteCartRequest: [order.cart.parse.cart_id, cart_etag],
    cart_pb2.MergeCartRequest: [order.cart.parse.merged],
    cart_pb2.CheckoutCartRequest: [lambda message: order.cart.parse.purchase(message, expected_etag(message))],
}
"""What a service calls, in sequence, to check a request of each type."""


class RequestField(NamedTuple):
    """A field of a request, or of a message in it."""

    request: type[Message]
    path: str
    """Where the field is in the request, as in `items[].quantity`."""
    field: FieldDescriptor

    @property
    def rules(self) -> validate_pb2.FieldRules:
        return self.field.GetOptions().Extensions[validate_pb2.field]


def request_fields(*services: ServiceDescriptor) -> Iterator[RequestField]:
    """Yields the fields of all requests of some services that clients may set and that are no messages of ours.

    The elements of a batch of requests are not fields of the batch.
    """
    for service in services:
        for method in service.methods:
            yield from _fields(GetMessageClass(method.input_type), method.input_type, "")


def _fields(request: type[Message], descriptor: Descriptor, prefix: str) -> Iterator[RequestField]:
    for field in descriptor.fields:
        found = RequestField(request, prefix + field.name, field)
        options: Any = field.GetOptions().Extensions  # google.api has no types
        if field_behavior_pb2.OUTPUT_ONLY in options[field_behavior_pb2.field_behavior]:
            continue
        inner = (
            field.message_type if field.message_type and field.message_type.file.package.startswith("shop.") else None
        )
        if field.is_repeated or not inner:
            yield found
        if inner and found.rules.repeated.items.ignore != validate_pb2.IGNORE_ALWAYS:
            yield from _fields(request, inner, f"{found.path}[]." if field.is_repeated else f"{found.path}.")


def max_items(kind: type[Message], field: str) -> int:
    """Returns how many elements a repeated field may have."""
    return kind.DESCRIPTOR.fields_by_name[field].GetOptions().Extensions[validate_pb2.field].repeated.max_items


def max_length(kind: type[Message], field: str) -> int:
    """Returns how many characters a text may have."""
    return kind.DESCRIPTOR.fields_by_name[field].GetOptions().Extensions[validate_pb2.field].string.max_len
