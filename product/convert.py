"""Between the rows of the catalogue and its messages."""

from google.protobuf import duration_pb2
from shop.product.v1 import product_pb2, stock_pb2

from product.domain import Product
from product.reservation import Reservation
from runtime.money import to_money
from runtime.times import timestamp


def seconds_of(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1_000_000_000


def product_message(product: Product) -> product_pb2.Product:
    return product_pb2.Product(
        id=str(product.id),
        name=product.name,
        slug=product.slug,
        sku=product.sku,
        variant=product.variant,
        description=product.description,
        category=product.category,
        price=to_money(product.currency, product.price_micros),
        stock=product.stock,
        star=product.star,
        image_uri=product.image_uri,
        etag=product.etag,
        create_time=timestamp(product.create_time),
        update_time=timestamp(product.update_time),
        delete_time=timestamp(product.delete_time) if product.delete_time else None,
    )


def reservation_message(reservation: Reservation) -> stock_pb2.Reservation:
    items = [
        stock_pb2.ReservedItem(
            product_id=str(item.product_id),
            quantity=item.quantity,
            name=item.name,
            unit_price=to_money(item.currency, item.price_micros),
        )
        for item in reservation.items
    ]
    return stock_pb2.Reservation(
        id=str(reservation.id),
        state=stock_pb2.Reservation.State.Value(reservation.state),
        items=items,
        expire_time=timestamp(reservation.expire_time),
    )
