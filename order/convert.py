"""Converts orders and their events to messages of the API."""

from collections.abc import Sequence

from shop.order.v1 import order_pb2

from order.domain import Order, StatusEvent
from runtime.money import set_money
from runtime.times import set_timestamp

_STATUSES = dict(order_pb2.Order.Status.items())


def order_message(order: Order) -> order_pb2.Order:
    """Returns an order as a message."""
    message = order_pb2.Order(
        id=str(order.id),
        number=order.number,
        status=_STATUSES[order.status],
        shipping_address=order.shipping_address,
        payment_method=order.payment_method,
        notes=order.notes,
        etag=order.etag,
    )
    for item in order.items:
        added = message.items.add(product_id=item.product_id, quantity=item.quantity, name=item.name)
        set_money(added.unit_price, order.currency, item.price_micros)
    set_money(message.total, order.currency, int(order.total_micros))
    customer = message.customer
    customer.name = order.customer_name
    customer.email = order.customer_email
    customer.phone = order.customer_phone
    set_timestamp(message.create_time, order.create_time)
    set_timestamp(message.update_time, order.update_time)
    return message


def event_messages(order_id: str, seen: int, events: Sequence[StatusEvent]) -> list[order_pb2.OrderStatusEvent]:
    """Returns the events after version `seen` as messages. If earlier ones were pruned, the first message says so.

    Args:
        order_id: The order of the events.
        seen: The last version that the client has seen; 0 for none.
        events: Events of one order, by version, all after `seen`.
    """
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
        messages[0].message += "; earlier events are no longer kept"
    return messages
