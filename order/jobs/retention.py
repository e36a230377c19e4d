"""How long event logs are kept: an order that was finished long ago keeps its status and loses its history."""

import logging
from dataclasses import dataclass

from runtime.database import Database
from runtime.worker import Worker

log = logging.getLogger(__name__)

INTERVAL = 300.0
"""Seconds between two looks for logs that are old enough."""

BATCH = 200
"""Orders whose logs are deleted in one statement; a log has at most five entries."""


@dataclass(frozen=True)
class _Pruned:
    found: int
    deleted: int


class Pruner:
    """Deletes the logs of orders that were finished `days` ago or earlier. Any number may run at the same time."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days
        self.run = Worker("pruner", self.step, INTERVAL).run

    async def step(self) -> bool:
        """Deletes one batch, whole logs only. Answers whether there may be more."""
        pruned = await self._database.fetch_one(
            "order.prune",
            # The statuses stand here as in the index. What another process is at, or somebody has locked, is left
            # alone: a log goes whole, or it waits for a later step.
            """
            WITH old AS (
                SELECT order_id FROM order_event
                WHERE status IN ('RECEIVED', 'CANCELLED') AND create_time < now() - make_interval(days => %(days)s)
                ORDER BY create_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            ), locked AS (
                SELECT e.order_id FROM order_event AS e JOIN old ON old.order_id = e.order_id
                FOR UPDATE OF e SKIP LOCKED
            ), whole AS (
                SELECT order_id FROM locked GROUP BY order_id
                HAVING count(*) = (SELECT count(*) FROM order_event AS e WHERE e.order_id = locked.order_id)
            ), gone AS (
                DELETE FROM order_event AS e USING whole WHERE e.order_id = whole.order_id RETURNING e.order_id
            )
            SELECT (SELECT count(*) FROM old) AS found, (SELECT count(DISTINCT order_id) FROM gone) AS deleted
            """,
            {"days": self._days, "limit": BATCH},
            _Pruned,
        )
        if pruned and pruned.deleted:
            log.info("deleted the event logs of %d orders finished over %d days ago", pruned.deleted, self._days)
        return bool(pruned and pruned.found == BATCH and pruned.deleted)
