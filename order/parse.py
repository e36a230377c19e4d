"""Requests, checked and turned into what the domain knows."""

import re
from datetime import datetime
from uuid import UUID

from shop.order.v1 import order_pb2

from order.domain import Draft, Line, OrderQuery, Status
from runtime import pages
from runtime.errors import invalid_argument
from runtime.pages import Cursor
from runtime.validate import NIL, Violations, is_invisible

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")

MOST_ITEMS = 50

Listing = tuple[OrderQuery, Cursor, int]
"""Which orders to list, where the page begins, and how many orders it gets."""


def draft(request: order_pb2.CreateOrderRequest) -> Draft:
    with Violations() as check:
        lines = _lines(check, request)
        email = _email(check, "customer.email", request.customer.email)
        return Draft(
            lines=lines,
            customer_name=check.text("customer.name", request.customer.name, most=200),
            customer_email=email,
            customer_phone=check.text("customer.phone", request.customer.phone, most=32),
            shipping_address=check.text("shipping_address", request.shipping_address, most=1_000, lines=True),
            payment_method=check.text("payment_method", request.payment_method, most=64),
            notes=check.text("notes", request.notes, most=2_000, lines=True),
        )


def _email(check: Violations, field: str, value: str) -> str:
    email = check.text(field, value, most=254)
    # Of ASCII, only white space cannot be seen, and control characters, which no text may have.
    if email and (not _EMAIL.fullmatch(email) or (not email.isascii() and any(map(is_invisible, email)))):
        check.add(field, "must be an e-mail address, as in ada@example.com")
    return email


def _lines(check: Violations, request: order_pb2.CreateOrderRequest) -> tuple[Line, ...]:
    if not 1 <= len(request.items) <= MOST_ITEMS:
        check.add("items", f"must be 1 to {MOST_ITEMS}, not {len(request.items)}")
        return ()
    lines: dict[UUID, Line] = {}
    for index, item in enumerate(request.items):
        product_id = check.uuid(f"items[{index}].product_id", item.product_id)
        if item.quantity < 1:
            check.add(f"items[{index}].quantity", "must be at least 1")
        if product_id in lines and product_id != NIL:
            check.add(f"items[{index}].product_id", "is there twice; give one item with the whole quantity")
        lines[product_id] = Line(product_id=product_id, quantity=item.quantity)
    return tuple(lines.values())


def listing(request: order_pb2.ListOrdersRequest) -> Listing:
    with Violations() as check:
        if request.status and request.status not in order_pb2.Order.Status.values():
            check.add("status", "must be a status of orders")
        email = _email(check, "customer_email", request.customer_email)
        number = check.text("number", request.number, most=64)
    status = Status(order_pb2.Order.Status.Name(request.status)) if request.status else None
    query = OrderQuery(status=status, customer_email=email, number=number)
    cursor = Cursor.parse(request.page_token, ("orders", query.status or "", email.lower(), number), (datetime, UUID))
    return query, cursor, pages.page_size(request.page_size)


def after_version(request: order_pb2.StreamOrderStatusRequest) -> int:
    if request.after_version < 0:
        raise invalid_argument([("after_version", "must not be negative")])
    return request.after_version
