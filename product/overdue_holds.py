"""Reads how many holds are past their time, for metrics. The order service settles them."""

from product.stock_store import OverdueHolds, StockStore
from runtime.recent import Recent

OVERDUE_POLL_INTERVAL = 15.0
"""Time between two reads, in seconds."""

MAX_READING_AGE = 60.0
"""Seconds after which what was read says nothing any more."""

MAX_COUNTED = 1_000
"""Holds that are counted at most."""


class OverdueHoldReader:
    """Reads the holds that are past their time. Each replica reads the same."""

    def __init__(self, store: StockStore) -> None:
        self._store = store
        self.latest: Recent[OverdueHolds] = Recent(MAX_READING_AGE)

    async def step(self) -> bool:
        """Reads once. Returns False: there is no more to do before the next time."""
        self.latest.set(await self._store.count_overdue(MAX_COUNTED))
        return False
