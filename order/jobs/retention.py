"""The event log pruner: deletes the logs of orders that were finished long ago. The orders keep their status."""

import logging
from dataclasses import dataclass

from runtime.database import Database

log = logging.getLogger(__name__)

PRUNE_INTERVAL = 300.0
"""Time between two searches for old logs, in seconds."""

PRUNE_BATCH_SIZE = 200
"""Orders whose logs are deleted in one statement. A log has at most five entries."""


@dataclass(frozen=True)
class _Pruned:
    found: int
    deleted: int


class Pruner:
    """Deletes event logs. Any number of pruners may run at the same time."""

    def __init__(self, database: Database, days: int) -> None:
        """Initializes the pruner, which keeps the log of an order for `days` after the order is finished."""
        self._database = database
        self._days = days

    async def step(self) -> bool:
        """Deletes one batch, whole logs only. Returns whether there may be more."""
        pruned = await self._database.fetch_one(
            "order.prune",
            # The condition on the status is that of the index. Logs that another process prunes, or that are locked,
            # are skipped: a log is deleted whole or in a later step.
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
            {"days": self._days, "limit": PRUNE_BATCH_SIZE},
            _Pruned,
        )
        if pruned and pruned.deleted:
            log.info("deleted the event logs of %d orders finished over %d days ago", pruned.deleted, self._days)
        return bool(pruned and pruned.found == PRUNE_BATCH_SIZE and pruned.deleted)
