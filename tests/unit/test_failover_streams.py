"""The watchers of tests/failover behave as an EventSource does, and their table counts what a stream did wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.failover.load.http import Http
from tests.failover.load.streams import Streams, Watch
from tests.failover.row import Seen

HEAD = "HTTP/1.1 {status} X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
RETRY = "retry: 10\n\n"
COMPLETED = "event: completed\ndata: stream closed\n\n"


def event(version: int) -> str:
    return f'id: {version}\ndata: {{"status":"PLACED"}}\n\n'


class Server:
    """Answers each connection with the next of the prepared texts, and then breaks it. 0 stands for a refusal."""

    def __init__(self, texts: Sequence[str | int]) -> None:
        self._texts = list(texts)
        self.last_event_ids: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.last_event_ids += [line.partition(": ")[2] for line in head.split("\r\n") if "last-event-id" in line] or [
            ""
        ]
        text = self._texts.pop(0)
        if isinstance(text, int):
            writer.write(HEAD.format(status=text).encode())
        else:
            # In two pieces, in the middle of an event.
            writer.write(HEAD.format(status=200).encode())
            for piece in (text[:9], text[9:]):
                writer.write(f"{len(piece):x}\r\n{piece}\r\n".encode())
                await writer.drain()
        writer.close()


@asynccontextmanager
async def watched(*texts: str | int) -> AsyncIterator[tuple[Watch, Streams, Server]]:
    """A watcher that has got the texts, one for each connection."""
    server = Server(texts)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    streams = Streams(Http("127.0.0.1", listening.sockets[0].getsockname()[1]))
    watch = streams.add("an-order")
    try:
        async with asyncio.timeout(5):
            while not watch.done:
                streams.changed.clear()
                await streams.changed.wait()
        yield watch, streams, server
    finally:
        streams.close()
        listening.close()


async def test_watcher_resumes_after_a_break() -> None:
    async with watched(RETRY + event(1), event(2) + COMPLETED) as (watch, streams, server):
        assert watch.versions == [1, 2]
        assert server.last_event_ids == ["", "1"]
        assert streams.counts == {"reconnects": 1}


async def test_no_content_ends_a_stream() -> None:
    async with watched(RETRY + event(1), 204) as (watch, streams, _):
        assert watch.versions == [1]
        assert streams.counts == {"reconnects": 1}


async def test_other_status_ends_a_stream_for_good() -> None:
    async with watched(503) as (_, streams, _):
        assert streams.counts == {"given up": 1}


@pytest.mark.parametrize(
    ("versions", "missed", "repeated"), [([1, 2, 3], 0, 0), ([1, 3], 1, 0), ([1, 2, 2, 3], 0, 1), ([1, 3, 2], 1, 0)]
)
def test_wrong_events_are_counted_once(versions: list[int], missed: int, repeated: int) -> None:
    seen = Seen()
    assert seen.count({"an-order": versions}, {"an-order": [1, 2, 3]}) == (missed, repeated)
    assert seen.count({"an-order": versions}, {"an-order": [1, 2, 3]}) == (0, 0)
