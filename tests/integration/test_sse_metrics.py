"""What the sidecar measures of its streams, as Prometheus reads it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from local.settings import free_ports
from runtime.subscriptions import LogRewound
from sse.config import Limits, Timing
from sse.streams.connections import CloseReason, StreamClosedError
from sse.streams.counts import OUTCOMES, EndReason
from tests.support.eventually import eventually
from tests.support.metrics import Scrape, scrape
from tests.support.sidecar import EVENTS, RunningSidecar, sidecar

OPENED = "shop_streams_opened_total"
CLOSED = "shop_streams_closed_total"


@pytest.fixture
def metrics_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
async def running(metrics_port: int) -> AsyncIterator[RunningSidecar]:
    async with sidecar(metrics_port=metrics_port) as started:
        yield started


def counted(seen: Scrape) -> dict[str, float]:
    """What is not 0 of the streams that were opened and closed."""
    values = {outcome: seen.value(OPENED, outcome=outcome) for outcome in OUTCOMES}
    values |= {str(reason): seen.value(CLOSED, reason=reason) for reason in EndReason}
    return {name: value for name, value in values.items() if value}


async def becomes(port: int, **wanted: float) -> None:
    """Waits until these and no other numbers are exported."""

    async def reached() -> bool:
        assert counted(await scrape(port)) == wanted
        return True

    await eventually(reached, 10)


async def test_counters_start_at_zero(running: RunningSidecar, metrics_port: int) -> None:
    seen = await scrape(metrics_port)
    assert seen.values(OPENED) == [0] * len(OUTCOMES)
    assert seen.values(CLOSED) == [0] * len(EndReason)
    assert seen.values("shop_stream_events_total") == [0]
    assert seen.values("shop_streams") == [0]
    assert seen.values("shop_streams_max") == [15_000]
    assert seen.values("shop_feed_up") == [1], "no order is watched"


async def test_streams_and_events_are_counted(running: RunningSidecar, metrics_port: int) -> None:
    order_id = running.logs.place("PLACED", "PROCESSED")
    async with running.stream(order_id) as first, running.stream(order_id, seen=1) as second:
        assert (await first.next()).startswith("id: 1")
        assert (await first.next()).startswith("id: 2")
        assert (await second.next()).startswith("id: 2")
        seen = await scrape(metrics_port)
        assert seen.values("shop_streams") == [2]
        assert seen.values("shop_stream_events_total") == [3]
        assert counted(seen) == {"opened": 2}
        running.logs.add(order_id, "RECEIVED")
        await first.rest()
        await second.rest()
    await becomes(metrics_port, opened=2, completed=2)
    seen = await scrape(metrics_port)
    assert seen.values("shop_streams") == [0]
    assert seen.values("shop_stream_events_total") == [5]


async def test_browser_that_leaves_is_counted(running: RunningSidecar, metrics_port: int) -> None:
    async with running.stream(running.logs.place("PLACED")) as stream:
        await stream.next()
    await becomes(metrics_port, opened=1, client=1)


async def test_requests_without_stream_are_counted(running: RunningSidecar, metrics_port: int) -> None:
    finished = running.logs.place("PLACED", "RECEIVED")
    statuses = {
        "x": (0, 400),
        str(uuid4()): (0, 404),
        finished: (2, 204),
    }
    for order_id, (seen, status) in statuses.items():
        headers = EVENTS | {"Last-Event-ID": str(seen)}
        answer = await running.http.get(f"/api/orders/stream?order_id={order_id}", headers=headers)
        assert answer.status_code == status
    await becomes(metrics_port, over=1, NOT_FOUND=1, INVALID_ARGUMENT=1)


async def test_head_request_is_no_stream(running: RunningSidecar, metrics_port: int) -> None:
    order_id = running.logs.place("PLACED")
    assert (await running.http.head(f"/api/orders/stream?order_id={order_id}")).status_code == 200
    await becomes(metrics_port)


async def test_streams_beyond_the_limit_are_counted(metrics_port: int) -> None:
    async with sidecar(limits=Limits(streams=1), metrics_port=metrics_port) as running:
        order_id = running.logs.place("PLACED")
        async with running.stream(order_id) as stream:
            await stream.next()
            answer = await running.http.get(f"/api/orders/stream?order_id={order_id}")
            assert answer.status_code == 429
            seen = await scrape(metrics_port)
            assert seen.value("shop_streams") == seen.value("shop_streams_max") == 1
            await becomes(metrics_port, opened=1, RESOURCE_EXHAUSTED=1)


async def test_lost_feed_is_seen_and_its_streams_are_counted(metrics_port: int) -> None:
    timing = Timing(upstream_timeout=2, log_timeout=0.2)
    async with sidecar(timing=timing, metrics_port=metrics_port) as running:
        order_id = running.logs.place("PLACED")
        async with running.stream(order_id) as stream:
            await stream.next()
            assert (await scrape(metrics_port)).values("shop_feed_up") == [1]
            await running.pods[0].kill()

            async def is_down() -> bool:
                return (await scrape(metrics_port)).values("shop_feed_up") == [0]

            await eventually(is_down, 10)
            answer = await running.http.get(f"/api/orders/stream?order_id={running.logs.place('PLACED')}")
            assert answer.status_code == 503
            with pytest.raises(httpx.RemoteProtocolError):
                await stream.rest(10)
        await becomes(metrics_port, opened=1, UNAVAILABLE=1, upstream_lost=1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LogRewound(), EndReason.REWOUND),
        (StreamClosedError(CloseReason.SHUTDOWN), EndReason.SHUTDOWN),
        (RuntimeError("a fault"), EndReason.ERROR),
    ],
)
async def test_ends_are_counted_by_reason(
    running: RunningSidecar, metrics_port: int, error: Exception, reason: EndReason
) -> None:
    order_id = running.logs.place("PLACED")
    async with running.stream(order_id) as stream:
        await stream.next()
        running.sidecar.feed.topics.fail([order_id], error)
        await becomes(metrics_port, opened=1, **{reason: 1})


async def test_slow_reader_is_counted(metrics_port: int) -> None:
    timing, limits = Timing(slow_reader_timeout=0.3), Limits(buffer=4096)
    async with sidecar(timing=timing, limits=limits, metrics_port=metrics_port) as running:
        order_id = running.logs.place("PLACED")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(running.address)
            slow.sendall(f"GET /api/orders/stream?order_id={order_id} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
            for _ in range(8):  # more than the kernel holds
                running.logs.add(order_id, "PROCESSED", "x" * 1_000_000)
                await asyncio.sleep(0.02)
            await becomes(metrics_port, opened=1, slow_reader=1)
