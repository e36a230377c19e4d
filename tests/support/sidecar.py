"""The sidecar in the test's process, on free ports, before an order service that says what the test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from shop.order.v1 import order_pb2, status_feed_pb2, status_feed_pb2_grpc

from runtime.config import Env, ServerConfig, TelemetryConfig
from runtime.telemetry import Telemetry
from sse.app import Sidecar
from sse.config import Limits, SidecarConfig, Timing

EVENTS = {"Accept": "text/event-stream"}
FINAL = ("RECEIVED", "CANCELLED")


def event(order_id: str, version: int, status: str, message: str = "") -> order_pb2.OrderStatusEvent:
    return order_pb2.OrderStatusEvent(
        order_id=order_id,
        version=version,
        status=order_pb2.Order.Status.Value(status),
        message=message or f"order {status}",
        update_time=Timestamp(seconds=1_800_000_000 + version),
    )


class Logs:
    """Event logs that any number of order processes share, as they share a database."""

    def __init__(self) -> None:
        self.events: dict[str, list[order_pb2.OrderStatusEvent]] = {}
        self._changed: set[asyncio.Event] = set()

    def place(self, *statuses: str, first: int = 1, message: str = "") -> str:
        """A new order with a log; one that begins at `first` lost what was before."""
        order_id = str(uuid4())
        self.events[order_id] = [event(order_id, n, status, message) for n, status in enumerate(statuses, first)]
        return order_id

    def add(self, order_id: str, status: str, message: str = "") -> None:
        log = self.events[order_id]
        log.append(event(order_id, log[-1].version + 1, status, message))
        for changed in self._changed:
            changed.set()

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[asyncio.Event]:
        changed = asyncio.Event()
        self._changed.add(changed)
        try:
            yield changed
        finally:
            self._changed.discard(changed)


class FakeFeed(status_feed_pb2_grpc.StatusFeedServiceServicer):
    """One order process's feed."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.calls = 0
        self.behind = False
        """Learns nothing by itself of what happens, as a process whose tailer has no connection."""

    async def FollowOrders(self, requests: Any, context: Any) -> Any:
        self.calls += 1
        sent: dict[str, int] = {}
        async with self.logs.changes() as changed:
            reader = asyncio.create_task(self._read(requests, sent, changed))
            try:
                while True:
                    changed.clear()
                    news = [one for key in list(sent) if (one := self._news(key, sent))]
                    if news:
                        yield status_feed_pb2.FollowOrdersResponse(news=news)
                    await changed.wait()
            finally:
                reader.cancel()

    async def _read(self, requests: Any, sent: dict[str, int], changed: asyncio.Event) -> None:
        async for request in requests:
            for key in request.unfollow:
                sent.pop(key, None)
            for order in request.follow:
                sent[order.order_id] = -1 - order.after_version  # below zero: the first answer is due
            changed.set()

    def _news(self, key: str, sent: dict[str, int]) -> status_feed_pb2.OrderNews | None:
        first = sent[key] < 0
        seen = -1 - sent[key] if first else sent[key]
        if key not in self.logs.events:
            del sent[key]
            return status_feed_pb2.OrderNews(order_id=key, missing=True)
        events = [each for each in self.logs.events[key] if each.version > seen]
        if not first and (self.behind or not events):
            return None
        log = self.logs.events[key]
        done = order_pb2.Order.Status.Name(log[-1].status) in FINAL
        if done:
            del sent[key]
        else:
            sent[key] = log[-1].version
        return status_feed_pb2.OrderNews(order_id=key, events=events, done=done)


@dataclass
class Pod:
    """One fake order process."""

    feed: FakeFeed
    port: int
    server: grpc.aio.Server

    async def kill(self) -> None:
        await self.server.stop(None)


async def pod(logs: Logs, port: int = 0) -> Pod:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    feed = FakeFeed(logs)
    status_feed_pb2_grpc.add_StatusFeedServiceServicer_to_server(feed, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return Pod(feed, port, server)


@dataclass
class RunningSidecar:
    sidecar: Sidecar
    logs: Logs
    pods: list[Pod]
    http: httpx.AsyncClient = field(repr=False)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.sidecar.http_port

    def waiting(self) -> list[int]:
        """The bytes that wait in this process for each browser."""
        server = self.sidecar._runner.server
        assert server
        return [each.transport.get_write_buffer_size() for each in server.connections if each.transport]

    @asynccontextmanager
    async def stream(self, order_id: str, seen: int = 0) -> AsyncIterator["Blocks"]:
        headers = {**EVENTS, **({"Last-Event-ID": str(seen)} if seen else {})}
        async with self.http.stream("GET", f"/api/orders/stream?order_id={order_id}", headers=headers) as response:
            yield Blocks(response)


class Blocks:
    """A stream, block by block."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._blocks = self._split()

    async def _split(self) -> AsyncIterator[str]:
        rest = ""
        async for text in self.response.aiter_text():
            *blocks, rest = (rest + text).split("\n\n")
            for block in blocks:
                yield block
        assert not rest, f"cut within a block: {rest!r}"

    async def next(self, seconds: float = 5) -> str:
        async with asyncio.timeout(seconds):
            return await anext(self._blocks)

    async def rest(self, seconds: float = 5) -> list[str]:
        async with asyncio.timeout(seconds):
            return [block async for block in self._blocks]


@asynccontextmanager
async def sidecar(
    *, pods: int = 1, timing: Timing | None = None, limits: Limits | None = None
) -> AsyncIterator[RunningSidecar]:
    logs = Logs()
    running = [await pod(logs) for _ in range(pods)]
    target = "ipv4:" + ",".join(f"127.0.0.1:{each.port}" for each in running)
    config = SidecarConfig(
        server=ServerConfig(host="127.0.0.1", grpc_port=0, shutdown_delay=0, shutdown_grace=1, caller_header=""),
        http_port=0,
        product_target=target,
        order_target=target,
        timing=timing or Timing(),
        limits=limits or Limits(),
    )
    telemetry = Telemetry(TelemetryConfig.from_env(Env({})), "sse")
    try:
        async with Sidecar(config, telemetry) as started:
            url = f"http://127.0.0.1:{started.http_port}"
            async with httpx.AsyncClient(base_url=url, timeout=10, limits=httpx.Limits(max_connections=None)) as http:
                yield RunningSidecar(started, logs, running, http)
    finally:
        telemetry.close()
        for each in running:
            await each.kill()
