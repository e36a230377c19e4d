"""However large a request is, a service refuses or reads it in no time: its other calls wait meanwhile."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2, stock_pb2

import order.parse
import product.parse
from product.listing import ProductQuery
from runtime import headers
from runtime.errors import ApiError
from runtime.validate import parse_uuid

MAX_SECONDS = 0.02
"""Of CPU. Letter by letter, a text of a megabyte takes several times as long."""

LONG_TEXTS = ("é" * 500_000, " " * 1_000_000, "a " * 500_000, "\u0301\u0316" * 250_000, '"' * 1_000_000)
MANY = 100_000


class NoMetadata:
    """The context of a call without headers."""

    def invocation_metadata(self) -> tuple[()]:
        return ()


def etag(message: Any) -> None:
    headers.expected_version(NoMetadata(), message.etag)  # type: ignore[arg-type]  # all that is asked of the context


def request_id(message: Any) -> None:
    headers.request_key(NoMetadata(), message.request_id)  # type: ignore[arg-type]  # as above


REQUESTS: list[tuple[type[Message], list[Callable[[Any], Any]]]] = [
    (product_pb2.CreateProductRequest, [lambda message: product.parse.new_product(message.product), request_id]),
    (product_pb2.GetProductRequest, [lambda message: parse_uuid("id", message.id)]),
    (product_pb2.BatchGetProductsRequest, [product.parse.batch_ids]),
    (
        product_pb2.ListProductsRequest,
        [product.parse.listing, lambda message: ProductQuery().cursor(message.page_token)],
    ),
    (product_pb2.UpdateProductRequest, [product.parse.changes, lambda message: etag(message.product)]),
    (product_pb2.DeleteProductRequest, [lambda message: parse_uuid("id", message.id), etag]),
    (product_pb2.ListCategoriesRequest, [product.parse.categories]),
    (product_pb2.AdjustStockRequest, [product.parse.adjustment, etag, request_id]),
    (stock_pb2.ReserveStockRequest, [product.parse.hold]),
    (stock_pb2.BatchReserveStockRequest, [lambda message: product.parse.check_batch("requests", message.requests)]),
    (
        stock_pb2.BatchConfirmReservationsRequest,
        [lambda message: product.parse.check_batch("reservation_ids", message.reservation_ids)],
    ),
    (
        stock_pb2.BatchReleaseReservationsRequest,
        [lambda message: product.parse.check_batch("reservation_ids", message.reservation_ids)],
    ),
    (stock_pb2.BatchGetReservationsRequest, [product.parse.reservation_ids]),
    (stock_pb2.ListReservationsRequest, [product.parse.reservations]),
    (order_pb2.CreateOrderRequest, [order.parse.draft, request_id]),
    (order_pb2.ListOrdersRequest, [order.parse.listing]),
    (order_pb2.CancelOrderRequest, [lambda message: parse_uuid("id", message.id), etag]),
]


def grown(message: Message, root: Message) -> Iterator[tuple[str, Message]]:
    """The request once for each text in it that can be long, and for each collection that can be large."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                value.add()
                yield from grown(value[0], root)
                for _ in range(MANY):
                    value.add()
            else:
                if field.type == FieldDescriptor.TYPE_STRING:
                    value.append(LONG_TEXTS[0])
                    yield f"{field.full_name} with a long text", root
                value.extend([1 if field.type == FieldDescriptor.TYPE_ENUM else "x"] * MANY)
            yield f"many {field.full_name}", root
            message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            value.SetInParent()
            yield from grown(value, root)
        elif field.type == FieldDescriptor.TYPE_STRING:
            for text in LONG_TEXTS:
                setattr(message, field.name, text)
                yield f"{field.full_name} of {len(text)} × {text[:2]!r}", root
            message.ClearField(field.name)


@pytest.mark.parametrize(("kind", "readers"), REQUESTS, ids=lambda each: getattr(each, "__name__", ""))
def test_large_request_costs_nothing(kind: type[Message], readers: list[Callable[[Any], Any]]) -> None:
    request = kind()
    slow = []
    for what, message in grown(request, request):
        started = time.thread_time()
        for read in readers:
            try:
                read(message)
            except ApiError:
                continue
        if (taken := time.thread_time() - started) > MAX_SECONDS:
            slow.append(f"{what}: {taken * 1000:.0f} ms")
    assert not slow
