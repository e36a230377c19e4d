"""Logs that are read while something happens to their orders."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg

from order.domain import StatusEvent
from order.live.followers import Logs
from order.store import LogEntry, OrderStore
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.order import eventually
from tests.support.watching import INSERT


class Late(OrderStore):
    """Its answers come after the tailer has published the next event of the order that is watched."""

    topics_of: Logs | None = None

    async def logs(self, order_ids: list[UUID]) -> list[LogEntry]:
        entries = await super().logs(order_ids)
        if self.topics_of:
            for key in order_ids:
                self.topics_of.topics.publish(str(key), StatusEvent(2, "PROCESSED", datetime.now(UTC)))
        return entries


async def test_an_event_that_comes_while_a_log_is_read_does_not_contradict_it(order_database: str) -> None:
    """The log is from before it. Only what was known before the read must be in it; otherwise the database was
    restored, and streams end."""
    key = uuid4()
    async with await psycopg.AsyncConnection.connect(order_database, autocommit=True) as connection:
        await connection.execute("INSERT INTO orders (id, number, status) VALUES (%s, 'INV-1', 'PLACED')", (key,))
        await connection.execute(INSERT, (key, 1, "PLACED"))
    database = Database(DatabaseConfig(conninfo=order_database, pool_size=1, pool_waiting=1, timeout=5), "test")
    await database.open()
    store = Late(database)
    logs = Logs(store)
    reading = asyncio.create_task(logs.run())
    watcher = logs.topics.watch(str(key), 0, lambda _: None)

    async def answered() -> bool:
        return watcher.topic.answered

    await eventually(answered)
    store.topics_of = logs
    logs.topics.renew(str(key))
    await eventually(answered)
    reading.cancel()
    await database.close()
    assert not watcher.topic.missing
    assert [event.version for event in watcher.take()] == [1, 2]
