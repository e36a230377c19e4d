"""An order store on its own connections, which counts its statements."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from order.domain import Draft, Item, Line, Order, Status
from order.store import OrderStore
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.order import A

TEXTS = Draft(
    lines=(Line(product_id=UUID(A), quantity=2),),
    customer_name="Ada Lovelace",
    customer_email="ada@example.com",
    customer_phone="+44 20 7946 0000",
    shipping_address="12 St James's Square\nLondon",
    payment_method="CARD",
    notes="Ring twice",
)
ITEMS = [Item(product_id=A, quantity=2, name="Watch", price_micros=12_500_000)]


class Counting(Database):
    """A database that records the names of its statements."""

    ran: list[str]

    async def fetch(self, name: Any, *args: Any, **more: Any) -> Any:
        self.ran.append(name)
        return await super().fetch(name, *args, **more)


class Replica:
    """A store with its own connections, as in another process."""

    def __init__(self, database: Counting) -> None:
        self.store = OrderStore(database)
        self.ran = database.ran

    async def insert(self, order_id: UUID, draft: Draft = TEXTS, items: list[Item] = ITEMS) -> Order | None:
        return await self.store.insert(order_id, "me", draft, "EUR", items)

    async def insert_all(self, ids: Sequence[UUID]) -> list[Order | None]:
        return await asyncio.gather(*map(self.insert, ids))

    async def move_all(self, ids: Sequence[UUID], target: Status = Status.CANCELLED) -> list[bool]:
        """Moves orders that exist. Returns whether each was moved."""
        results = await asyncio.gather(*(self.store.move(each, target, None) for each in ids))
        assert all(order and order.status == target for order, _ in results)
        return [moved for _, moved in results]


@asynccontextmanager
async def replica_on(conninfo: str) -> AsyncIterator[Replica]:
    database = Counting(DatabaseConfig(conninfo=conninfo, pool_size=4, pool_waiting=100, timeout=20), "test")
    database.ran = []
    await database.open()
    yield Replica(database)
    await database.close()
