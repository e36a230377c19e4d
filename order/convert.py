"""Between the rows of orders and their messages."""

from collections.abc import Sequence

from shop.order.v1 import order_pb2

from order.domain import Order, StatusEvent
from runtime.money import set_money
from runtime.times import set_timestamp

_STATUSES = dict(order_pb2.Order.Status.items())


def order_message(order: Order) -> order_pb2.Order:
    message = order_pb2.Order(
        id=str(order.id),
        number=order.number or "",
        status=_STATUSES[order.status],
        shipping_address=order.shipping_address,
        payment_method=order.payment_method,
        notes=order.notes,
        etag=order.etag,
    )
    for item in order.items:
        added = message.items.add(product_id=item["product_id"], quantity=item["quantity"], name=item["name"])
        set_money(added.unit_price, order.currency, item["price_micros"])
    set_money(message.total, order.currency, int(order.total_micros))
    customer = message.customer
    customer.name = order.customer_name
    customer.email = order.customer_email
    customer.phone = order.customer_phone
    set_timestamp(message.create_time, order.create_time)
    set_timestamp(message.update_time, order.update_time)
    return message


def event_messages(order_id: str, seen: int, events: Sequence[StatusEvent]) -> list[order_pb2.OrderStatusEvent]:
    """What comes after version `seen`. Where the log no longer has all of that, the first event says so."""
    messages = [
        order_pb2.OrderStatusEvent(
            order_id=order_id,
            version=event.version,
            status=_STATUSES[event.status],
            message=f"order {event.status}",
        )
        for event in events
    ]
    for message, event in zip(messages, events, strict=True):
        set_timestamp(message.update_time, event.time)
    if messages and messages[0].version > seen + 1:
        messages[0].message += "; what happened before is no longer kept"
    return messages
