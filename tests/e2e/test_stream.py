"""The live stream through the real Envoy and the sidecar, with an SSE client library that is not ours."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

from httpx_sse import ServerSentEvent, aconnect_sse

from tests.support.rest import Rest
from tests.support.shop import RunningShop

PATHS = ("/api/orders/stream?order_id={}", "/api/v1/orders/{}/status/stream")
DATA = re.compile(
    r'\{"order_id":"[0-9a-f-]{36}","status":"[A-Z]+","message":"order [A-Z]+",'
    r'"updated_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"\}'
)


async def events(rest: Rest, path: str, last_id: str | None = None) -> AsyncIterator[ServerSentEvent]:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with aconnect_sse(rest.http, "GET", path, headers=headers) as source:
        async for event in source.aiter_sse():
            yield event


async def move(rest: Rest, order_id: str, *verbs: str) -> None:
    for verb in verbs:
        (await rest.http.post(f"/api/v1/orders/{order_id}:{verb}", json={})).raise_for_status()


def statuses(seen: list[ServerSentEvent]) -> list[str]:
    return [json.loads(each.data)["status"] for each in seen if each.event == "message"]


async def test_stream_has_history_then_live_events_then_end(rest: Rest) -> None:
    for path in PATHS:
        order = await rest.order((await rest.product())["id"])
        await move(rest, order["id"], "process")
        seen: list[ServerSentEvent] = []
        async for event in events(rest, path.format(order["id"])):
            seen.append(event)
            if event.id == "2" and event.event == "message":
                await move(rest, order["id"], "deliver", "receive")
        assert [each.id for each in seen[:4]] == ["1", "2", "3", "4"]
        assert statuses(seen) == ["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"]
        assert (seen[-1].event, seen[-1].data, len(seen)) == ("completed", "stream closed", 5)


async def test_wire_format_is_as_documented(rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    await move(rest, order["id"], "cancel")
    answer = await rest.http.get(PATHS[0].format(order["id"]))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    blocks = answer.text.split("\n\n")
    assert blocks[2:] == ["event: completed\ndata: stream closed", ""]
    for number, block in enumerate(blocks[:2], 1):
        first, second = block.split("\n")
        assert first == f"id: {number}"
        assert DATA.fullmatch(second.removeprefix("data: "))


async def test_reconnecting_watcher_sees_each_status_once(rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    path = PATHS[0].format(order["id"])
    seen: list[ServerSentEvent] = []
    last: str | None = None
    for verb in ("process", "deliver", "receive"):
        async for event in events(rest, path, last):
            seen.append(event)
            last = event.id
            break  # the connection is cut after each event
        await move(rest, order["id"], verb)
    async for event in events(rest, path, last):
        seen.append(event)
    assert statuses(seen) == ["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"]
    assert seen[-1].event == "completed"
    done = await rest.http.get(path, headers={"Last-Event-ID": seen[-2].id})
    assert (done.status_code, done.content) == (204, b"")


async def test_invalid_last_event_id_replays_everything(rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    await move(rest, order["id"], "cancel")
    answer = await rest.http.get(PATHS[0].format(order["id"]), headers={"Last-Event-ID": "yesterday"})
    assert answer.text.count("id: ") == 2


async def test_all_watchers_of_an_order_see_its_events(rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])

    async def watch() -> list[str]:
        return statuses([event async for event in events(rest, PATHS[1].format(order["id"]))])

    watchers = [asyncio.create_task(watch()) for _ in range(20)]
    await asyncio.sleep(0.2)
    await move(rest, order["id"], "process", "cancel")
    assert await asyncio.gather(*watchers) == [["PLACED", "PROCESSED", "CANCELLED"]] * 20


async def test_unknown_order_gets_a_json_error(rest: Rest) -> None:
    for path in PATHS:
        for accept in ("*/*", "text/event-stream"):
            headers = {"Accept": accept}
            rest.refused(await rest.http.get(path.format("x"), headers=headers), 400, 3, field="order_id")
            unknown = path.format("00000000-0000-4000-8000-000000000000")
            rest.refused(await rest.http.get(unknown, headers=headers), 404, 5)


async def test_change_arrives_while_the_stream_is_open(rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    waiting = asyncio.Event()

    async def watch() -> str:
        async for event in events(rest, PATHS[0].format(order["id"])):
            if event.id == "1":
                waiting.set()
            else:
                return event.id
        raise AssertionError("the stream ended")

    watcher = asyncio.create_task(watch())
    await waiting.wait()
    await move(rest, order["id"], "process")
    assert await asyncio.wait_for(watcher, 20) == "2"


async def test_curl_reads_the_stream_unbuffered(rest: Rest, shop_url: str) -> None:
    order = await rest.order((await rest.product())["id"])
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sN", f"{shop_url}{PATHS[0].format(order['id'])}", stdout=asyncio.subprocess.PIPE
    )
    assert curl.stdout
    assert await asyncio.wait_for(curl.stdout.readline(), 5) == b"id: 1\n"
    await move(rest, order["id"], "process", "deliver", "receive")
    rest_of_it = await asyncio.wait_for(curl.stdout.read(), 5)
    assert rest_of_it.endswith(b"event: completed\ndata: stream closed\n\n")
    assert await curl.wait() == 0


async def test_early_disconnect_is_not_an_error(shop: RunningShop, rest: Rest) -> None:
    logs = [shop.shop.logs / f"{name}.log" for name in ("sse", "order")]
    before = [len(log.read_bytes()) for log in logs]
    order = await rest.order((await rest.product())["id"])
    for _ in range(30):
        async for _event in events(rest, PATHS[0].format(order["id"])):
            break
    await asyncio.sleep(0.5)
    for log, size in zip(logs, before, strict=True):
        said = log.read_bytes()[size:].decode()
        assert not [word for word in ("WARNING", "ERROR", "Traceback", "never awaited") if word in said], said
