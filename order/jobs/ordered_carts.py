"""Carts that still have the items of an order: a table of the order database came from a backup, and another did not.

A checkout empties the cart in the statement that writes the order, and the time of a cart never decreases. So no order
is newer than the cart that it was made of, whatever runs beside this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from order.cart.domain import EMPTY_TTL
from runtime.database import Database


@dataclass(frozen=True)
class ComparedCart:
    """A cart, and the order whose items it may still have."""

    id: UUID
    has_items: bool
    """Whether it has items, and exists for its holder."""
    order_id: UUID | None
    """The newest order that was made of the cart after its items changed last, if it has items and there is one."""
    number: str | None
    """The number of the order."""


@dataclass(frozen=True)
class _Id:
    id: UUID


class OrderedCarts:
    """Finds and empties such carts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, after: UUID | None, limit: int) -> Sequence[ComparedCart]:
        """Returns the next carts after `after`, in the sequence of their ids, with or without items."""
        return await self._database.fetch(
            "cart.list",
            """
            SELECT page.id, has_items, made.id AS order_id, made.number
            FROM (
                SELECT id, update_time,
                    items <> '[]' AND merged_into IS NULL AND expire_time > now() AS has_items
                FROM cart WHERE id > %(after)s
                ORDER BY id LIMIT %(limit)s
            ) AS page
            LEFT JOIN LATERAL (
                SELECT id, number FROM orders
                WHERE page.has_items AND cart_id = page.id AND create_time > page.update_time
                ORDER BY create_time DESC LIMIT 1
            ) AS made ON true
            ORDER BY page.id
            """,
            {"after": after or UUID(int=0), "limit": limit},
            ComparedCart,
        )

    async def empty(self, cart_id: UUID) -> bool:
        """Empties a cart if an order was made of it after its items changed last. Returns whether it did."""
        emptied = await self._database.fetch_one(
            "cart.empty_ordered",
            # The time is not before that of the order, even if the clock is: what is added from now on is not ordered.
            """
            UPDATE cart SET items = '[]', etag = gen_random_uuid(), expire_time = now() + %(empty_ttl)s,
                update_time = greatest(now(), made.create_time)
            FROM (SELECT max(create_time) AS create_time FROM orders WHERE cart_id = %(id)s) AS made
            WHERE cart.id = %(id)s AND items <> '[]' AND update_time < made.create_time
            RETURNING cart.id
            """,
            {"id": cart_id, "empty_ttl": EMPTY_TTL},
            _Id,
        )
        return emptied is not None
