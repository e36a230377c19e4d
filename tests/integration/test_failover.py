"""A failover of the order service's database under load: little time without writes, nothing lost, nothing twice."""

from pathlib import Path

import pytest

from tests.support.failover import TRANSIENT, measure

MAX_SECONDS = 5.0
"""Seconds that the service may need after its database takes writes again. Alone on a machine it needs about one."""


@pytest.mark.parametrize("case", ["killed", "switchover", "demoted", "lost", "isolated", "frozen"])
async def test_service_follows_its_database(case: str, tmp_path: Path) -> None:
    found = await measure(case, tmp_path, pooled=False)
    assert max(found.orders_s, found.reads_s, found.carts_s, found.events_s) < MAX_SECONDS
    assert (found.lost, found.pieces, found.missed) == (0, 0, 0)
    assert set(found.failed) <= TRANSIENT
    assert found.ready, "a short outage changes no readiness"
