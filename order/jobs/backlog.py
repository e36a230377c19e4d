"""Reads what waits in the database, for metrics: messages to the product service, and expired carts."""

from dataclasses import dataclass
from typing import LiteralString

from runtime.database import Database
from runtime.recent import Recent

BACKLOG_POLL_INTERVAL = 15.0
"""Time between two reads, in seconds."""

MAX_READING_AGE = 60.0
"""Seconds after which what was read says nothing any more."""

MAX_COUNTED = 10_000
"""Messages that are counted at most."""


@dataclass(frozen=True)
class Reading:
    """What waits at a moment."""

    messages: int
    """Messages in the outbox, at most MAX_COUNTED."""
    message_age: float
    """Seconds since the oldest message was written; 0 without one."""
    purge_lag: float
    """Seconds since the oldest expired cart has expired; 0 without one."""


class Backlog:
    """Reads what waits. Each replica reads the same."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.latest: Recent[Reading] = Recent(MAX_READING_AGE)

    async def step(self) -> bool:
        """Reads what waits. Returns False: there is no more to do before the next time."""
        # A message is written with a change of its order, whose time is therefore its own. A message whose order is
        # gone, because the database comes from a backup, has none, and is soon dropped.
        query: LiteralString = """
            WITH oldest AS MATERIALIZED (
                SELECT order_id, action FROM outbox ORDER BY id LIMIT 1
            )
            SELECT
                (SELECT count(*) FROM (SELECT FROM outbox ORDER BY id LIMIT %(limit)s) AS counted) AS messages,
                coalesce((
                    SELECT extract(epoch FROM now() - CASE action WHEN 'CONFIRM' THEN create_time ELSE update_time END)
                    FROM oldest JOIN orders ON orders.id = order_id
                ), 0)::float8 AS message_age,
                coalesce((
                    SELECT extract(epoch FROM now() - expire_time) FROM cart
                    WHERE expire_time <= now() ORDER BY expire_time LIMIT 1
                ), 0)::float8 AS purge_lag
            """
        # Planned each time: a plan made for an empty outbox would read all of a full one.
        [reading] = await self._database.fetch("order.backlog", query, {"limit": MAX_COUNTED}, Reading, replan=True)
        self.latest.set(reading)
        return False
