"""Logs that are read while something happens to their orders."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg

from order.domain import StatusEvent
from order.live.logs import LogReader
from order.store import LogEntry, OrderStore
from runtime.config import DatabaseConfig
from runtime.database import Database
from runtime.subscriptions import Subscription
from runtime.topics import Topics
from tests.support.watching import INSERT


class Late(OrderStore):
    """Returns logs after the tailer has published the next event of each order."""

    topics: Topics[StatusEvent] | None = None

    async def logs(self, order_ids: list[UUID]) -> list[LogEntry]:
        entries = await super().logs(order_ids)
        if self.topics is not None:
            for key in order_ids:
                self.topics.publish(str(key), StatusEvent(2, "PROCESSED", datetime.now(UTC)))
        return entries


async def test_event_published_during_read_is_no_contradiction(order_database: str) -> None:
    """The log is from before it.

    Only what was known before the read must be in it; otherwise the database was restored, and streams end.
    """
    key = uuid4()
    async with await psycopg.AsyncConnection.connect(order_database, autocommit=True) as connection:
        await connection.execute("INSERT INTO orders (id, number, status) VALUES (%s, 'INV-1', 'PLACED')", (key,))
        await connection.execute(INSERT, (key, 1, "PLACED"))
    database = Database(DatabaseConfig(conninfo=order_database, pool_size=1, pool_waiting=1, timeout=5), "test")
    await database.open()
    store = Late(database)
    topics: Topics[StatusEvent] = Topics()
    reading = asyncio.create_task(LogReader(store, topics).run())
    with Subscription(topics, str(key)) as first, Subscription(topics, str(key), refresh=True) as second:
        await first.ready(5)
        store.topics = topics
        with Subscription(topics, str(key), refresh=True) as third:
            await third.ready(5)
            for subscription in (first, second, third):
                assert [event.version for event in subscription.take()] == [1, 2]
    reading.cancel()
    await database.close()
