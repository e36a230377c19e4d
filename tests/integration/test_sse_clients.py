"""The sidecar's streams as the clients of this world ask for them: polyfills, probes, proxies in between."""

import asyncio

import httpx
import pytest

from tests.support.sidecar import EVENTS, RunningSidecar, sidecar

PATHS = ["/api/orders/stream?order_id={}", "/api/v1/orders/{}/status/stream?", "/api/orders/stream/?order_id={}"]
SPELLINGS = ["lastEventId", "last-event-id", "Last-Event-ID", "last_event_id"]


def ids(answer: httpx.Response) -> list[str]:
    return [line[4:] for line in answer.text.splitlines() if line.startswith("id: ")]


def finished(running: RunningSidecar) -> str:
    return running.logs.place("PLACED", "PROCESSED", "CANCELLED")


@pytest.mark.parametrize("path", PATHS)
async def test_last_event_id_in_query_resumes(path: str) -> None:
    """Polyfills of EventSource cannot set headers."""
    async with sidecar() as running:
        url = path.format(finished(running))
        for name in SPELLINGS:
            assert ids(await running.http.get(f"{url}&{name}=2")) == ["3"], name
            assert (await running.http.get(f"{url}&{name}=3")).status_code == httpx.codes.NO_CONTENT, name
            assert ids(await running.http.get(f"{url}&{name}=yesterday")) == ["1", "2", "3"], name
        assert ids(await running.http.get(f"{url}&lastEventId=1&lastEventId=2")) == ["3"], "the one added last"


@pytest.mark.parametrize("path", PATHS)
async def test_last_event_id_header_wins_over_query(path: str) -> None:
    async with sidecar() as running:
        url = path.format(finished(running)) + "&lastEventId=2"
        assert ids(await running.http.get(url, headers={"Last-Event-ID": "1"})) == ["2", "3"]
        assert ids(await running.http.get(url, headers={"Last-Event-ID": "x"})) == ["1", "2", "3"]
        assert ids(await running.http.get(url, headers={"Last-Event-ID": ""})) == ["3"]


@pytest.mark.parametrize("path", PATHS)
async def test_head_gets_headers_of_stream_and_ends(path: str) -> None:
    """A live stream would never end; what is no stream has the status that GET has."""
    async with sidecar() as running:
        live, done = running.logs.place("PLACED"), finished(running)
        async with asyncio.timeout(5):
            answer = await running.http.head(path.format(live), headers=EVENTS)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
            seen = await running.http.head(f"{path.format(done)}&lastEventId=3")
            missing = await running.http.head(path.format("123e4567-e89b-42d3-a456-426614174000"))
            malformed = await running.http.head(path.format("x"))
        assert [each.status_code for each in (seen, missing, malformed)] == [204, 404, 400]
        assert len(running.sidecar.connections) == 0


async def test_streams_must_not_be_transformed() -> None:
    """Compressing middlewares would hold events back until the stream's end."""
    async with sidecar() as running:
        answer = await running.http.get(PATHS[0].format(finished(running)))
        assert answer.headers["cache-control"] == "no-cache, no-transform"
