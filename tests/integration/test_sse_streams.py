"""The sidecar's streams: what a browser gets, whatever becomes of the order service behind it."""

import asyncio
import json
import re
import socket
from contextlib import suppress

import httpx
import pytest

from runtime.subscriptions import Subscription
from sse.config import Limits, Timing
from sse.streams.wire import RETRY_RANGE
from tests.support.eventually import eventually
from tests.support.sidecar import EVENTS, Blocks, Pod, RunningSidecar, pod, sidecar


def retry(block: str) -> int:
    name, _, value = block.partition(": ")
    assert name == "retry"
    assert RETRY_RANGE[0] <= int(value) <= RETRY_RANGE[1]
    return int(value)


def ids(blocks: list[str]) -> list[int]:
    return [int(block.partition("\n")[0][4:]) for block in blocks if block.startswith("id: ")]


async def in_use(running: RunningSidecar) -> Pod:
    """The order process that the sidecar follows."""

    async def called() -> bool:
        return any(each.feed.calls for each in running.pods)

    await eventually(called)
    return next(each for each in running.pods if each.feed.calls)


async def test_a_whole_log_begins_with_its_first_event() -> None:
    """Byte for byte as documented: nothing comes before it."""
    async with sidecar() as running:
        order_id = running.logs.place("PLACED", "CANCELLED")
        answer = await running.http.get(f"/api/v1/orders/{order_id}/status/stream", headers=EVENTS)
        assert answer.text == (
            f'id: 1\ndata: {{"order_id":"{order_id}","status":"PLACED","message":"order PLACED",'
            '"updated_at":"2027-01-15T08:00:01.000Z"}\n\n'
            f'id: 2\ndata: {{"order_id":"{order_id}","status":"CANCELLED","message":"order CANCELLED",'
            '"updated_at":"2027-01-15T08:00:02.000Z"}\n\n'
            "event: completed\ndata: stream closed\n\n"
        )


@pytest.mark.parametrize("seen", [0, 2])
async def test_resume_of_pruned_log_gets_notice_and_status(seen: int) -> None:
    async with sidecar() as running:
        order_id = running.logs.place("RECEIVED", first=4)
        async with running.stream(order_id, seen) as stream:
            blocks = await stream.rest()
        assert blocks[0] == ": history before version 4 is gone"
        assert ids(blocks) == [4]
        assert blocks[-1] == "event: completed\ndata: stream closed"


async def test_no_pruned_notice_when_resume_is_complete() -> None:
    async with sidecar() as running:
        order_id = running.logs.place("RECEIVED", first=4)
        async with running.stream(order_id, 3) as stream:
            assert (await stream.rest())[0].startswith("id: 4\n")
        answer = await running.http.get(
            f"/api/orders/stream?order_id={order_id}", headers={**EVENTS, "Last-Event-ID": "4"}
        )
        assert answer.status_code == httpx.codes.NO_CONTENT


async def test_pruned_log_that_was_unfollowed_early_is_answered() -> None:
    """What comes for an order that is followed again might be left over from before: its follow id tells."""
    async with sidecar() as running:
        order_id = running.logs.place("RECEIVED", first=4)
        live = running.logs.place("PLACED")
        async with running.stream(live) as kept:
            await kept.next()
            for _ in range(3):
                with Subscription(running.sidecar.feed.topics, order_id):
                    await running.pods[0].feed.has_followed(order_id)
            async with running.stream(order_id) as stream:
                assert ids(await stream.rest()) == [4]
        assert running.pods[0].feed.calls == 1


async def test_first_heartbeat_has_retry_hint_with_jitter() -> None:
    async with sidecar(timing=Timing(heartbeat_interval=0.3)) as running:

        async def hint() -> int:
            async with running.stream(running.logs.place("PLACED")) as stream:
                assert (await stream.next()).startswith("id: 1\n")
                first = retry(await stream.next(1))
                for _ in range(2):
                    assert await stream.next(1) == ": heartbeat"
                return first

        hints = await asyncio.gather(*(hint() for _ in range(8)))
        assert len(set(hints)) > 1, "a restart is no stampede"


async def test_slow_browser_is_cut_and_others_are_not() -> None:
    """What waits for it is bounded in bytes and in seconds; it comes back with its Last-Event-ID."""
    timing, limits = Timing(slow_reader_timeout=0.3), Limits(buffer=4096)
    async with sidecar(timing=timing, limits=limits) as running:
        huge = running.logs.place("PLACED")
        other = running.logs.place("PLACED")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(running.address)
            slow.sendall(f"GET /api/orders/stream?order_id={huge} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
            async with running.stream(other) as stream:
                await stream.next()
                for _ in range(8):  # more than the kernel holds
                    running.logs.add(huge, "PROCESSED", "x" * 1_000_000)
                    await asyncio.sleep(0.02)

                async def cut() -> bool:
                    return len(running.sidecar.connections) == 1

                await eventually(cut, 10)
                running.logs.add(other, "CANCELLED")
                assert ids(await stream.rest()) == [2]


async def test_slow_reader_buffer_is_bounded() -> None:
    """However much happens meanwhile; when it is back it goes on after the last event that it has whole."""
    event = 10_000
    async with sidecar(timing=Timing(slow_reader_timeout=0.3)) as running:
        order_id = running.logs.place("PLACED")

        async def watch(seen: int) -> list[int]:
            async with running.stream(order_id, seen) as stream:
                return ids(await stream.rest(20))

        quick = asyncio.create_task(watch(0))
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(running.address)
            slow.sendall(f"GET /api/orders/stream?order_id={order_id} HTTP/1.0\r\n\r\n".encode())
            waiting = 0
            for _ in range(900):  # more than the kernel holds
                running.logs.add(order_id, "PROCESSED", "x" * event)
                await asyncio.sleep(0.002)
                waiting = max([waiting, *running.waiting()])

            async def cut() -> bool:
                return len(running.sidecar.connections) == 1

            await eventually(cut)
            assert waiting < Limits().buffer + 10 * event
            got = await asyncio.to_thread(until_closed, slow)
        first = [int(number) for number in re.findall(rb"id: (\d+)\n.*\n\n", got)]
        resumed = asyncio.create_task(watch(first[-1]))
        await asyncio.sleep(0.1)
        running.logs.add(order_id, "CANCELLED")
        assert first + await resumed == await quick == list(range(1, 903))


def until_closed(connection: socket.socket) -> bytes:
    """What is still to be read of a connection that was cut."""
    got = b""
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            got += data
    return got


async def test_another_order_replica_takes_over() -> None:
    async with sidecar(pods=2) as running:
        orders = [running.logs.place("PLACED") for _ in range(20)]

        async def watch(order_id: str) -> list[int]:
            async with running.stream(order_id) as stream:
                return ids(await stream.rest(20))

        watchers = [asyncio.create_task(watch(order_id)) for order_id in orders]

        async def all_there() -> bool:
            return len(running.sidecar.connections) == len(orders)

        await eventually(all_there)
        for status in ("PROCESSED", "DELIVERED", "RECEIVED"):
            used = await in_use(running)
            await used.kill()
            for order_id in orders[:10]:
                running.logs.add(order_id, status)
            running.pods[running.pods.index(used)] = await pod(running.logs, used.port)
            for order_id in orders[10:]:
                running.logs.add(order_id, status)
        assert await asyncio.gather(*watchers) == [[1, 2, 3, 4]] * len(orders)


async def test_browser_ahead_of_replica_sees_no_event_twice() -> None:
    """It comes from a sidecar whose order process was quicker; ours has the log read again before it says a word."""
    async with sidecar() as running:
        order_id = running.logs.place("PLACED")
        async with running.stream(order_id) as here:
            await here.next()
            running.pods[0].feed.behind = True
            running.logs.add(order_id, "PROCESSED")
            async with running.stream(order_id, 2) as there:
                assert ids([await here.next()]) == [2]
                running.pods[0].feed.behind = False
                running.logs.add(order_id, "CANCELLED")
                assert ids(await there.rest()) == [3]
            assert ids(await here.rest()) == [3]


async def test_browser_ahead_is_sent_away_while_order_is_down() -> None:
    """A replay of what it has seen would be a lie; it comes back by itself."""
    async with sidecar(timing=Timing(log_timeout=1.5)) as running:
        order_id = running.logs.place("PLACED")
        async with running.stream(order_id) as here:
            await here.next()
            await running.pods[0].kill()
            async with running.stream(order_id, 2) as there:
                async with running.stream(order_id) as third:
                    assert ids([await third.next(0.5)]) == [1], "who claims nothing is not held up by who does"
                (only,) = await there.rest()
                retry(only)


async def test_invalid_last_event_id_replays_from_start() -> None:
    async with sidecar() as running:
        order_id = running.logs.place("PLACED", "PROCESSED")
        for seen in ("3", "yesterday", "-1", "1.0", "٢", "9" * 30):
            headers = {b"Accept": b"text/event-stream", b"Last-Event-ID": seen.encode()}
            async with running.http.stream("GET", f"/api/orders/stream?order_id={order_id}", headers=headers) as answer:
                stream = Blocks(answer)
                assert ids([await stream.next(), await stream.next()]) == [1, 2], seen


async def test_lost_order_service_ends_streams_with_error() -> None:
    """Never with a clean end, which would look like the order's."""
    async with sidecar(timing=Timing(upstream_timeout=0.5)) as running:
        async with running.stream(running.logs.place("PLACED")) as stream:
            await stream.next()
            await running.pods[0].kill()
            retry(await stream.next())
            assert (await stream.next()).startswith('event: error\ndata: {"code":14,')
            with pytest.raises(httpx.RemoteProtocolError):
                await stream.next()


@pytest.mark.parametrize("limits", [Limits(streams=2), Limits(streams_per_client=2)])
async def test_event_source_beyond_limit_is_told_to_retry(limits: Limits) -> None:
    async with sidecar(limits=limits) as running:
        path = f"/api/orders/stream?order_id={running.logs.place('PLACED')}"
        held = [await running.http.send(running.http.build_request("GET", path), stream=True) for _ in range(2)]
        again = await running.http.get(path, headers=EVENTS)
        assert (again.status_code, again.headers["content-type"]) == (200, "text/event-stream")
        retry(again.text.strip())
        refused = await running.http.get(path)
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert json.loads(refused.text)["code"] == 8
        assert int(refused.headers["retry-after"]) >= 2
        await held.pop().aclose()

        async def left() -> bool:
            return len(running.sidecar.connections) == 1

        await eventually(left)
        async with running.stream(running.logs.place("CANCELLED")) as stream:
            assert ids(await stream.rest()) == [1]
        await held.pop().aclose()


async def test_stopping_sidecar_sends_browsers_elsewhere() -> None:
    async def follow(running: RunningSidecar) -> list[str]:
        async with running.stream(running.logs.place("PLACED")) as stream:
            return await stream.rest()

    async with sidecar() as running:
        watchers = [asyncio.create_task(follow(running)) for _ in range(20)]

        async def all_there() -> bool:
            return len(running.sidecar.connections) == len(watchers)

        await eventually(all_there)
        await asyncio.sleep(0.2)
        await running.sidecar.connections.drain()
        ends = await asyncio.gather(*watchers)
        assert len({retry(blocks[-1]) for blocks in ends}) > 1, "not all at once"


async def test_restored_order_ends_streams_and_next_replays() -> None:
    """The browser comes back with a version that the log does not have, and gets what there is."""
    async with sidecar() as running:
        order_id = running.logs.place("PLACED", "PROCESSED")
        async with running.stream(order_id) as stream:
            assert [(await stream.next())[:5] for _ in range(2)] == ["id: 1", "id: 2"]
            log = running.logs.events.pop(order_id)
            await running.pods[0].kill()
            running.pods[0] = await pod(running.logs, running.pods[0].port)
            assert (await stream.next(20)).startswith("retry: ")
            assert (await stream.next()).startswith('event: error\ndata: {"code":14,')
        running.logs.events[order_id] = log[:1]
        async with running.stream(order_id, seen=2) as stream:
            assert (await stream.next()).startswith("id: 1")
            running.logs.add(order_id, "CANCELLED")
            assert (await stream.next()).startswith("id: 2")
