"""What `make bench-streams` measures for a minute, held in seconds: kills, and no event missed or doubled."""

import asyncio

from bench.bench_shop import BenchShop
from bench.streams import faults


async def kill_each(shop: BenchShop) -> int:
    """The sidecar, while all follow; then both order replicas, one after the other, so that the one that the sidecar
    follows is among them."""
    names = [*shop.names("sse"), *shop.names("order")]
    for name in names:
        await asyncio.sleep(0.5)
        shop.kill(name)
        await asyncio.sleep(0.3)
        shop.launch(name)
        await shop.ready()
    return len(names)


async def test_killed_processes_lose_and_repeat_no_event() -> None:
    watchers = 200
    result = await faults(watchers, 75, kill_each, orders=2, edges=1)
    assert result.kills == 3
    assert result.reconnects >= watchers, "the sidecar was killed under all of them"
    assert (result.missed, result.doubled) == (0, 0)
    assert (result.given_up, result.unfinished) == (0, 0)
