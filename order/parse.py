"""Checks requests and converts them to what the domain and the store take."""

import re
from datetime import datetime
from uuid import UUID

from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

from order.domain import Details, Draft, Line, OrderQuery, Status, draft_of
from runtime import pages
from runtime.constraints import Constraints
from runtime.pages import Cursor
from runtime.validate import Violations, is_invisible

CONSTRAINTS = Constraints(order_pb2.DESCRIPTOR, multiline={"shipping_address", "notes"})

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")

Listing = tuple[OrderQuery, Cursor, int]
"""Which orders to list, where the page starts, and its size."""

Move = (
    order_pb2.ProcessOrderRequest
    | order_pb2.DeliverOrderRequest
    | order_pb2.ReceiveOrderRequest
    | order_pb2.CancelOrderRequest
)
"""A request for a transition."""


def order_id(request: order_pb2.GetOrderRequest | order_pb2.CreateOrderTicketRequest | Move) -> UUID:
    """Returns the id of the order that a request is for. Raises INVALID_ARGUMENT if the request is malformed."""
    CONSTRAINTS.enforce(request)
    return UUID(request.id)


def draft(request: order_pb2.CreateOrderRequest) -> Draft:
    """Returns the order to create. Raises INVALID_ARGUMENT if the request is malformed."""
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        items = list(request.items)
        violations.distinct(
            "items[{}].product_id", [item.product_id for item in items], "duplicate product; combine into one item"
        )
        check_email(violations, "customer.email", request.customer.email)
    lines = tuple([Line(product_id=UUID(item.product_id), quantity=item.quantity) for item in items])
    return draft_of(lines, details(request))


def details(request: order_pb2.CreateOrderRequest | cart_pb2.CheckoutCartRequest) -> Details:
    """Returns what the client writes on an order beside its items."""
    customer = request.customer
    return Details(
        customer_name=customer.name,
        customer_email=customer.email,
        customer_phone=customer.phone,
        shipping_address=request.shipping_address,
        payment_method=request.payment_method,
        notes=request.notes,
    )


def check_email(violations: Violations, field: str, email: str) -> None:
    """Adds a violation if a text is neither empty nor an e-mail address."""
    # The only invisible ASCII characters are white space, which the pattern excludes, and control characters, which no
    # text may have.
    if email and (not _EMAIL.fullmatch(email) or (not email.isascii() and any(map(is_invisible, email)))):
        violations.add(field, "must be an e-mail address, as in ada@example.com")


def listing(request: order_pb2.ListOrdersRequest, owner: str | None = None) -> Listing:
    """Returns what to list. Raises INVALID_ARGUMENT if the request is malformed.

    Args:
        request: The request.
        owner: The customer whose orders to list; None for everybody's.
    """
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        check_email(violations, "customer_email", request.customer_email)
    status = Status(order_pb2.Order.Status.Name(request.status)) if request.status else None
    query = OrderQuery(status=status, customer_email=request.customer_email, number=request.number, owner=owner)
    whose = () if owner is None else (owner,)
    described = ("orders", query.status or "", query.customer_email.lower(), query.number, *whose)
    return query, Cursor.parse(request.page_token, described, (datetime, UUID)), pages.page_size(request.page_size)


def stream(request: order_pb2.StreamOrderStatusRequest) -> tuple[UUID, int]:
    """Returns the id of the order to stream and the version to start after.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    CONSTRAINTS.enforce(request)
    return UUID(request.order_id), request.after_version
