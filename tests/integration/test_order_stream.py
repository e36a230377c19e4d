"""StreamOrderStatus: the log, then what happens, each version once and in order, until the end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import grpc
import pytest

from order.domain import Status
from order.live import tailer
from tests.support.eventually import eventually
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop, status_name
from tests.support.product import UNKNOWN, refused
from tests.support.watching import cut_tailers


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


async def read(stream: Any, most: int = 100) -> list[tuple[int, str]]:
    found = []
    async for event in stream:
        found.append((event.version, status_name(event)))
        if len(found) == most:
            break
    return found


async def order_in(shop: OrderShop, status: str) -> str:
    order = await shop.create()
    for step in PATHS[status]:
        await shop.move(step, order.id)
    return order.id


async def test_finished_order_is_replayed_and_stream_ends(shop: OrderShop) -> None:
    order_id = await order_in(shop, "RECEIVED")
    stream = shop.stream(order_id)
    assert await read(stream) == [(1, "PLACED"), (2, "PROCESSED"), (3, "DELIVERED"), (4, "RECEIVED")]
    assert await stream.code() is grpc.StatusCode.OK


async def test_an_event_says_what_happened_when(shop: OrderShop) -> None:
    order = await shop.create()
    event = await anext(aiter(shop.stream(order.id)))
    assert (event.order_id, event.message) == (order.id, "order PLACED")
    assert event.update_time == order.create_time


async def test_changes_come_live(shop: OrderShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a wake, not by the next poll: that is minutes away here."""
    monkeypatch.setattr(tailer, "POLL_INTERVAL", 300)
    await asyncio.sleep(1.1)  # the poll that waits already
    order = await shop.create()
    stream = aiter(shop.stream(order.id))
    assert (await anext(stream)).version == 1
    for version, step in enumerate(PATHS["RECEIVED"], start=2):
        await shop.move(step, order.id)
        async with asyncio.timeout(20):
            event = await anext(stream)
        assert (event.version, status_name(event)) == (version, step)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_resume_has_only_what_is_new(shop: OrderShop) -> None:
    order_id = await order_in(shop, "CANCELLED")
    assert await read(shop.stream(order_id, 1)) == [(2, "CANCELLED")]
    assert await read(shop.stream(order_id, 2)) == []
    assert await read(shop.stream(order_id, 99)) == []


async def test_headers_come_at_once_when_nothing_is_new(shop: OrderShop) -> None:
    order = await shop.create()
    stream = shop.stream(order.id, 1)
    async with asyncio.timeout(20):
        await stream.initial_metadata()
    await shop.move("CANCELLED", order.id)
    assert await read(stream) == [(2, "CANCELLED")]


async def test_an_unknown_order_is_not_found(shop: OrderShop) -> None:
    with refused() as error:
        await read(shop.stream(UNKNOWN))
    assert (error.what.code, error.what.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")


@pytest.mark.parametrize(("order_id", "after", "field"), [("1", 0, "order_id"), (UNKNOWN, -1, "after_version")])
async def test_malformed_requests_are_refused(shop: OrderShop, order_id: str, after: int, field: str) -> None:
    with refused() as error:
        await read(shop.stream(order_id, after))
    assert (error.what.code, set(error.what.fields)) == ("INVALID_ARGUMENT", {field})


async def test_order_with_pruned_log_streams_its_state(shop: OrderShop) -> None:
    order_id = await order_in(shop, "DELIVERED")
    async with shop.connection() as connection:
        await connection.execute("DELETE FROM order_event WHERE order_id = %s", (order_id,))
    stream = aiter(shop.stream(order_id, 1))
    event = await anext(stream)
    assert (event.version, status_name(event)) == (3, "DELIVERED")
    await shop.move("RECEIVED", order_id)
    assert await read(stream) == [(4, "RECEIVED")]


async def test_many_watchers_of_one_order_see_the_same(shop: OrderShop) -> None:
    order = await shop.create()
    readers = [asyncio.create_task(read(shop.stream(order.id))) for _ in range(50)]
    for step in PATHS["RECEIVED"]:
        await shop.move(step, order.id)
        await asyncio.sleep(0.01)
    expected = [(version, status.value) for version, status in enumerate(list(Status)[:4], start=1)]
    assert await asyncio.gather(*readers) == [expected] * 50


async def test_logs_without_followers_are_forgotten(shop: OrderShop) -> None:
    """A client that goes away takes its watcher along, whether it waited or did not read."""
    order = await shop.create()
    waiting, unread = shop.stream(order.id), shop.stream(order.id)
    assert await read(waiting, most=1) == [(1, "PLACED")]
    await unread.initial_metadata()
    waiting.cancel()
    unread.cancel()

    async def alone() -> bool:
        return len(shop.followers) == 0 and len(shop.followers.topics) == 0

    await eventually(alone)


async def test_stream_ends_with_unavailable_at_shutdown(order_database: str) -> None:
    """Watchers get UNAVAILABLE, at once, and go on elsewhere after the last version that they saw."""
    stock = FakeStock()
    async with order_shop(order_database, stock) as second:
        async with order_shop(order_database, stock, SHUTDOWN_GRACE="20") as first:
            order = await first.create()
            stream = aiter(first.stream(order.id))
            assert (await anext(stream)).version == 1
            waiting = asyncio.create_task(read(stream))
            left = asyncio.get_running_loop().time()
        with refused() as error:
            await waiting
        assert (error.what.code, error.what.message) == ("UNAVAILABLE", "the server is shutting down")
        assert asyncio.get_running_loop().time() - left < 5, "it waits for no stream"
        await second.move("CANCELLED", order.id)
        assert await read(second.stream(order.id, 1)) == [(2, "CANCELLED")]


@pytest.mark.parametrize("restore", ["DELETE FROM orders", "DELETE FROM order_event WHERE version > 1"])
async def test_restore_ends_stream_that_saw_more(shop: OrderShop, restore: LiteralString) -> None:
    """It would wait for ever for what comes after an event that never was. A new one is told what there is."""
    order = await shop.create()
    await shop.move("PROCESSED", order.id)
    stream = aiter(shop.stream(order.id))
    assert [(await anext(stream)).version for _ in range(2)] == [1, 2]
    async with shop.connection() as connection:
        await connection.execute(restore)
        await connection.execute("UPDATE orders SET status = 'PLACED', version = 1")
    await cut_tailers(shop)
    with refused() as error:
        await asyncio.wait_for(anext(stream), 20)
    assert error.what.code == "UNAVAILABLE"
    if "order_event" in restore:
        again, resumed = aiter(shop.stream(order.id)), aiter(shop.stream(order.id, 2))
        for stream in (again, resumed):  # who resumes after what never was begins anew
            assert status_name(await asyncio.wait_for(anext(stream), 20)) == "PLACED"
        await shop.move("CANCELLED", order.id)
        assert await read(again) == await read(resumed) == [(2, "CANCELLED")]


async def test_streams_of_one_address_are_bounded(order_database: str) -> None:
    """The edge says whose a call is; who calls past it counts as its peer."""

    def of(address: str) -> dict[str, Any]:
        return {"metadata": (("x-envoy-external-address", address),)}

    async with order_shop(order_database, FakeStock(), ORDER_MAX_STREAMS_PER_CLIENT="1") as shop:
        order = await shop.create()
        first, other, direct = (
            aiter(shop.stream(order.id, **more)) for more in (of("2001:db8::1"), of("2001:db8:0:1::1"), {})
        )
        for stream in (first, other, direct):
            assert (await anext(stream)).version == 1
        for more in (of("2001:db8::2"), {}):
            with refused() as error:
                await anext(aiter(shop.stream(order.id, **more)))
            assert (error.what.code, error.what.retry_after) == ("RESOURCE_EXHAUSTED", 1.0)
        await shop.move("CANCELLED", order.id)
        assert await read(first) == [(2, "CANCELLED")]
        assert len(await read(shop.stream(order.id, **of("2001:db8::2")))) == 2


async def test_streams_of_a_process_are_bounded(order_database: str) -> None:
    """Those beyond are told so at once; those of the sidecar, which carry all browsers, are not counted."""
    async with order_shop(order_database, FakeStock(), ORDER_MAX_STREAMS="2") as shop:
        order = await shop.create()
        streams = [aiter(shop.stream(order.id)) for _ in range(2)]
        assert [(await anext(stream)).version for stream in streams] == [1, 1]
        with refused() as error:
            await anext(aiter(shop.stream(order.id)))
        assert (error.what.code, error.what.retry_after) == ("RESOURCE_EXHAUSTED", 1.0)
        await shop.move("CANCELLED", order.id)
        assert [await read(stream) for stream in streams] == [[(2, "CANCELLED")]] * 2
        assert len(await read(shop.stream(order.id))) == 2
