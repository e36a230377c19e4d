"""The sidecar's one call to the order service, where orders are unfollowed and followed anew."""

from tests.support.order import eventually
from tests.support.sidecar import sidecar


async def test_news_of_a_follow_that_has_ended_is_no_log() -> None:
    """An order was unfollowed and followed anew while news of it was under way. The new stream begins with the order's
    first event, not with that news."""
    async with sidecar() as running:
        feed, logs = running.sidecar.feed, running.logs
        other, order = logs.place("PLACED"), logs.place("PLACED")
        keep = feed.topics.watch(other, 0, lambda _: None)
        first = feed.topics.watch(order, 0, lambda _: None)

        async def answered() -> bool:
            return keep.topic.version == first.topic.version == 1

        await eventually(answered)
        logs.add(order, "PROCESSED")
        feed.topics.unwatch(first)
        second = feed.topics.watch(order, 0, lambda _: None)

        async def loaded() -> bool:
            return second.topic.loaded

        await eventually(loaded)
        logs.add(order, "CANCELLED")

        async def over() -> bool:
            return second.topic.final

        await eventually(over)
        assert [event.version for event in second.take()] == [1, 2, 3]
