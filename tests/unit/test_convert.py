"""Messages have all fields of their rows, and no others."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from google.protobuf import timestamp_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import stock_pb2

from order.convert import event_messages, order_message
from order.domain import Item, Order, Status, StatusEvent
from product.convert import product_message, reservation_message
from product.domain import Product
from product.reservation import Item as ReservedItem
from product.reservation import Reservation, ReservationState
from runtime.times import set_timestamp

ID = UUID(int=7)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME = datetime(2026, 11, 23, 7, 8, 9, 123456, tzinfo=UTC)

ORDER = Order(
    id=ID,
    number="INV-1",
    status=Status.PLACED,
    items=[
        Item(product_id="a", quantity=2, name="Watch", price_micros=12_500_000),
        Item(product_id="b", quantity=1, name="Strap", price_micros=0),
    ],
    currency="EUR",
    total_micros=Decimal(25_000_000),
    customer_name="",
    customer_email="",
    customer_phone="",
    shipping_address="",
    payment_method="",
    notes="",
    fingerprint=b"",
    version=1,
    create_time=EPOCH,
    update_time=TIME,
)

PRODUCT = Product(
    id=ID,
    name="Watch",
    slug="watch",
    sku="W",
    variant="",
    description="",
    category="",
    currency="EUR",
    price_micros=0,
    stock=0,
    star=0,
    image_uri="",
    version=1,
    create_time=EPOCH,
    update_time=EPOCH,
    delete_time=None,
)


@pytest.mark.parametrize(
    "time", [EPOCH, TIME, datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
)
def test_time_is_exact(time: datetime) -> None:
    expected = timestamp_pb2.Timestamp()
    expected.FromDatetime(time)
    found = timestamp_pb2.Timestamp()
    set_timestamp(found, time)
    assert found == expected


def test_order_message_has_all_fields() -> None:
    message = order_message(ORDER)
    assert [(each.product_id, each.quantity, each.name) for each in message.items] == [
        ("a", 2, "Watch"),
        ("b", 1, "Strap"),
    ]
    assert [(each.unit_price.units, each.unit_price.nanos) for each in message.items] == [(12, 500_000_000), (0, 0)]
    assert (message.total.currency_code, message.total.units, message.status) == ("EUR", 25, order_pb2.Order.PLACED)
    assert (message.id, message.etag, message.update_time.nanos) == (str(ID), "1", 123_456_000)


def test_empty_messages_are_present() -> None:
    """A customer without a name is a message, and so is midnight of 1970."""
    order = order_message(replace(ORDER, currency="", total_micros=Decimal(0)))
    assert order.HasField("customer")
    assert order.HasField("create_time")
    assert order.HasField("total")
    product = product_message(replace(PRODUCT, currency=""))
    assert product.HasField("price")
    assert product.HasField("create_time")


def test_live_product_has_no_delete_time() -> None:
    assert not product_message(PRODUCT).HasField("delete_time")
    assert product_message(replace(PRODUCT, delete_time=EPOCH)).HasField("delete_time")


def test_event_messages_have_times_of_their_events() -> None:
    events = [
        StatusEvent(version=2, status="PROCESSED", time=TIME),
        StatusEvent(version=3, status="CANCELLED", time=EPOCH),
    ]
    messages = event_messages("x", 1, events)
    assert [(each.version, each.update_time.ToDatetime(UTC)) for each in messages] == [(2, TIME), (3, EPOCH)]


def test_reservation_message_has_all_items() -> None:
    item = ReservedItem(product_id=ID, quantity=3, name="Watch", currency="EUR", price_micros=1_500_000)
    message = reservation_message(Reservation(id=ID, state=ReservationState.HELD, items=(item,), expire_time=TIME))
    assert message.state == stock_pb2.Reservation.HELD
    assert message.expire_time.ToDatetime(UTC) == TIME
    (found,) = message.items
    assert (found.product_id, found.quantity, found.name) == (str(ID), 3, "Watch")
    assert (found.unit_price.currency_code, found.unit_price.units, found.unit_price.nanos) == ("EUR", 1, 500_000_000)
