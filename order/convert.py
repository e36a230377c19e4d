"""Between the rows of orders and their messages."""

from collections.abc import Sequence

from shop.order.v1 import order_pb2

from order.domain import Order, StatusEvent
from runtime.money import to_money
from runtime.times import timestamp


def order_message(order: Order) -> order_pb2.Order:
    return order_pb2.Order(
        id=str(order.id),
        number=order.number or "",
        status=order_pb2.Order.Status.Value(order.status),
        items=[
            order_pb2.OrderItem(
                product_id=item["product_id"],
                quantity=item["quantity"],
                name=item["name"],
                unit_price=to_money(order.currency, item["price_micros"]),
            )
            for item in order.items
        ],
        total=to_money(order.currency, int(order.total_micros)),
        customer=order_pb2.Customer(name=order.customer_name, email=order.customer_email, phone=order.customer_phone),
        shipping_address=order.shipping_address,
        payment_method=order.payment_method,
        notes=order.notes,
        etag=order.etag,
        create_time=timestamp(order.create_time),
        update_time=timestamp(order.update_time),
    )


def event_messages(order_id: str, seen: int, events: Sequence[StatusEvent]) -> list[order_pb2.OrderStatusEvent]:
    """What comes after version `seen`. Where the log no longer has all of that, the first event says so."""
    messages = [
        order_pb2.OrderStatusEvent(
            order_id=order_id,
            version=event.version,
            status=order_pb2.Order.Status.Value(event.status),
            message=f"order {event.status}",
            update_time=timestamp(event.time),
        )
        for event in events
    ]
    if messages and messages[0].version > seen + 1:
        messages[0].message += "; what happened before is no longer kept"
    return messages
