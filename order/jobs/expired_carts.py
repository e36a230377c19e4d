"""The cart purger: deletes expired carts, and the ids of the requests that added to carts more than a day ago.

It works for a bounded share of the time, so that a backlog of any size disturbs nobody: after each batch it pauses for
several times as long as the batch took. Nobody waits for it, since an expired cart does not exist for its holder.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString

from runtime.database import Database
from runtime.logs import Throttle

log = logging.getLogger(__name__)

PURGE_INTERVAL = 300.0
"""Time between two searches for what has expired, in seconds."""

PURGE_BATCH_SIZE = 500
"""Rows that are deleted in one statement."""

PAUSE_FACTOR = 9
"""The pause after a batch, as a multiple of the time that the batch took."""

ADD_RETENTION = timedelta(days=1)
"""How long the id of a request that added to a cart is remembered."""

LOG_INTERVAL = 60.0
"""The shortest time between two log lines of a purger that works through a backlog, in seconds."""

_BEGINNING = datetime.min.replace(tzinfo=UTC)


def _batch(table: LiteralString, time: LiteralString) -> LiteralString:
    """Returns the statement that deletes a batch of a table's rows, by the time in a column."""
    # Deleted rows stay in an index until they are vacuumed. `from_time` leads past those of the batches before.
    return f"""
        WITH old AS MATERIALIZED (
            SELECT ctid, {time} AS time FROM {table}
            WHERE {time} >= %(from_time)s AND {time} <= now() - %(retention)s
            ORDER BY {time} LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM {table} WHERE ctid = ANY (ARRAY (SELECT ctid FROM old)) RETURNING 1
        )
        SELECT count(*) AS found, max(time) AS last_time, (SELECT count(*) FROM deleted) AS deleted FROM old
        """  # noqa: S608 - of literals


_CARTS = _batch("cart", "expire_time")
_ADDS = _batch("cart_add", "create_time")


@dataclass(frozen=True)
class _Batch:
    found: int
    last_time: datetime | None
    deleted: int


class ExpiredRows:
    """The rows of a table that have expired. They are deleted in batches, the oldest first."""

    def __init__(
        self, database: Database, name: LiteralString, query: LiteralString, retention: timedelta = timedelta(0)
    ) -> None:
        """Initializes the batches.

        Args:
            database: Its connections.
            name: The statement's name in logs.
            query: The statement that deletes a batch, and skips rows that are locked.
            retention: How long a row is kept after the time in its column.
        """
        self._database = database
        self._name: LiteralString = name
        self._query: LiteralString = query
        self._retention = retention
        self._from_time = _BEGINNING
        self.deleted = 0
        """Rows that were deleted since the process started."""
        self._logged = 0

    async def delete_batch(self) -> bool:
        """Deletes a batch. Returns whether there may be another one."""
        params = {"from_time": self._from_time, "retention": self._retention, "limit": PURGE_BATCH_SIZE}
        batch = await self._database.fetch_one(self._name, self._query, params, _Batch)
        assert batch is not None
        self.deleted += batch.deleted
        more = batch.found == PURGE_BATCH_SIZE
        # What was locked is tried again after the last batch.
        self._from_time = batch.last_time if more and batch.last_time else _BEGINNING
        return more

    def count_deleted(self) -> int:
        """Returns how many rows were deleted since the call before."""
        before, self._logged = self._logged, self.deleted
        return self.deleted - before


class CartPurger:
    """Deletes what has expired. Any number of purgers may run at the same time."""

    def __init__(self, database: Database) -> None:
        self.carts = ExpiredRows(database, "cart.purge", _CARTS)
        self.adds = ExpiredRows(database, "cart.purge_adds", _ADDS, ADD_RETENTION)
        self._may_log = Throttle(LOG_INTERVAL)

    async def step(self) -> bool:
        """Deletes a batch of each table. Returns whether there may be more, after a pause."""
        clock = asyncio.get_running_loop().time
        start = clock()
        more = [await rows.delete_batch() for rows in (self.carts, self.adds)]
        took = clock() - start
        if not any(more):
            self._log()
            return False
        if self._may_log():
            self._log()
        await asyncio.sleep(PAUSE_FACTOR * took)
        return True

    def _log(self) -> None:
        carts, adds = self.carts.count_deleted(), self.adds.count_deleted()
        if carts or adds:
            log.info("deleted %d expired carts and the ids of %d old requests", carts, adds)
