"""Products and reservations as messages of the API."""

from google.protobuf import duration_pb2
from shop.product.v1 import product_pb2, stock_pb2

from product.domain import Product
from product.reservation import Offer, Reservation, ReservationState
from runtime.money import set_money
from runtime.times import set_timestamp

_STATES = {state: stock_pb2.Reservation.State.Value(state.value) for state in ReservationState}


def seconds_of(duration: duration_pb2.Duration) -> float:
    """Returns a duration in seconds."""
    return duration.seconds + duration.nanos / 1_000_000_000


def product_message(product: Product) -> product_pb2.Product:
    """Returns a product as a message of the API."""
    message = product_pb2.Product(
        id=str(product.id),
        name=product.name,
        slug=product.slug,
        sku=product.sku,
        variant=product.variant,
        description=product.description,
        category=product.category,
        stock=product.stock,
        star=product.star,
        image_uri=product.image_uri,
        etag=product.etag,
    )
    set_money(message.price, product.currency, product.price_micros)
    set_timestamp(message.create_time, product.create_time)
    set_timestamp(message.update_time, product.update_time)
    if product.delete_time:
        set_timestamp(message.delete_time, product.delete_time)
    return message


def reservation_message(reservation: Reservation) -> stock_pb2.Reservation:
    """Returns a reservation as a message of StockService."""
    message = stock_pb2.Reservation(id=str(reservation.id), state=_STATES[reservation.state])
    for item in reservation.items:
        added = message.items.add(product_id=str(item.product_id), quantity=item.quantity, name=item.name)
        set_money(added.unit_price, item.currency, item.price_micros)
    set_timestamp(message.expire_time, reservation.expire_time)
    return message


def offer_message(offer: Offer) -> stock_pb2.Offer:
    """Returns an offer as a message of StockService."""
    message = stock_pb2.Offer(
        product_id=str(offer.product_id), name=offer.name, available=offer.available, deleted=offer.deleted
    )
    set_money(message.unit_price, offer.currency, offer.price_micros)
    return message
