"""A failover of the order service's database behind a pooler, which keeps its own connections to the server."""

from pathlib import Path

import pytest

from tests.integration.test_failover import MAX_SECONDS
from tests.support.failover import TRANSIENT, measure


@pytest.mark.parametrize("case", ["switchover", "demoted", "pooler_restarted"])
async def test_service_behind_a_pooler_follows_its_database(case: str, tmp_path: Path) -> None:
    found = await measure(case, tmp_path, pooled=True)
    assert max(found.orders_s, found.reads_s, found.carts_s, found.events_s) < MAX_SECONDS
    assert (found.lost, found.pieces, found.missed) == (0, 0, 0)
    assert set(found.failed) <= TRANSIENT
    assert found.ready, "a short outage changes no readiness"
