"""Rows of the table `orders` as the domain knows them."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

from order.domain import Details, Item, Order, Status, Tombstone
from runtime.rows import instance

COLUMNS: LiteralString = (
    "id, number, nullif(status, 'EXPIRED') AS status, items, currency, total_micros, customer_name, customer_email,"
    " customer_phone, shipping_address, payment_method, notes, fingerprint, version, create_time, update_time,"
    " owner"
)
"""The columns of an OrderRow."""


@dataclass(frozen=True, kw_only=True)
class OrderRow(Details):
    """A row of `orders`: an order, or a tombstone, which has neither number nor status."""

    id: UUID
    number: str | None
    status: Status | None
    items: list[Item]
    currency: str
    total_micros: Decimal
    fingerprint: bytes
    version: int
    create_time: datetime
    update_time: datetime
    owner: str


def order_of(row: OrderRow) -> Order | Tombstone:
    """Returns the order of a row, or its tombstone."""
    if row.number is None:
        return Tombstone(row.id)
    return instance(Order, vars(row))
