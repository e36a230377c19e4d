"""The sidecar in the test's process, on free ports, before an order service that says what the test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from shop.order.v1 import order_pb2, status_feed_pb2, status_feed_pb2_grpc

from runtime.access.config import AccessConfig
from runtime.config import Env, ServerConfig
from runtime.telemetry.config import TelemetryConfig
from sse.app import Running, serving
from sse.config import Limits, SidecarConfig, Timing
from tests.support.access import open_access
from tests.support.eventually import eventually

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


class Script:
    """What a test sends in place of the logs' news, and what the sidecar requested."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[status_feed_pb2.FollowOrdersRequest] = asyncio.Queue()
        self.responses: asyncio.Queue[status_feed_pb2.FollowOrdersResponse] = asyncio.Queue()


Authorize = Callable[[status_feed_pb2.AuthorizeStreamRequest, Any], Awaitable[status_feed_pb2.AuthorizeStreamResponse]]


class FakeFeed(status_feed_pb2_grpc.StatusFeedServiceServicer):
    """One order process's feed."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.calls = 0
        self.script: Script | None = None
        self.behind = False
        """Learns nothing by itself of what happens, as a process whose tailer has no connection."""
        self._followed: set[str] = set()
        self.authorized: list[status_feed_pb2.AuthorizeStreamRequest] = []
        self.authorize: Authorize | None = None
        """Decides who may follow; everybody may by default."""

    async def FollowOrders(
        self, request_iterator: AsyncIterator[status_feed_pb2.FollowOrdersRequest], context: Any
    ) -> AsyncIterator[status_feed_pb2.FollowOrdersResponse]:
        self.calls += 1
        followed: dict[str, Followed] = {}
        async with self.logs.changes() as changed:
            reader = asyncio.create_task(self._read(request_iterator, followed, changed))
            try:
                while self.script:
                    yield await self.script.responses.get()
                while True:
                    changed.clear()
                    news = [one for key in list(followed) if (one := self._news(key, followed))]
                    if news:
                        yield status_feed_pb2.FollowOrdersResponse(news=news)
                    await changed.wait()
            finally:
                reader.cancel()

    async def has_followed(self, order_id: str) -> None:
        """Returns once an order was followed since the last call."""

        async def done() -> bool:
            return order_id in self._followed

        await eventually(done)
        self._followed.discard(order_id)

    async def _read(
        self,
        requests: AsyncIterator[status_feed_pb2.FollowOrdersRequest],
        followed: dict[str, "Followed"],
        changed: asyncio.Event,
    ) -> None:
        async for request in requests:
            if self.script:
                self.script.requests.put_nowait(request)
            for key in request.unfollow:
                followed.pop(key, None)
            for order in request.follow:
                followed[order.order_id] = Followed(order.follow_id, order.after_version)
                self._followed.add(order.order_id)
            changed.set()

    def _news(self, key: str, followed: dict[str, "Followed"]) -> status_feed_pb2.OrderNews | None:
        order = followed[key]
        if key not in self.logs.events:
            del followed[key]
            return status_feed_pb2.OrderNews(order_id=key, follow_id=order.follow_id, missing=True)
        log = self.logs.events[key]
        events = [each for each in log if each.version > order.seen]
        if order.answered and (self.behind or not events):
            return None
        done = order_pb2.Order.Status.Name(log[-1].status) in FINAL
        if done:
            del followed[key]
        else:
            order.answered, order.seen = True, log[-1].version
        return status_feed_pb2.OrderNews(order_id=key, follow_id=order.follow_id, events=events, done=done)

    async def AuthorizeStream(
        self, request: status_feed_pb2.AuthorizeStreamRequest, context: Any
    ) -> status_feed_pb2.AuthorizeStreamResponse:
        self.authorized.append(request)
        if self.authorize:
            return await self.authorize(request, context)
        return status_feed_pb2.AuthorizeStreamResponse()


@dataclass
class Followed:
    """An order that a call follows, and the last version that was sent of it."""

    follow_id: int
    seen: int
    answered: bool = False


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
    sidecar: Running
    logs: Logs
    pods: list[Pod]
    http: httpx.AsyncClient = field(repr=False)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.sidecar.http_port

    def waiting(self) -> list[int]:
        """The bytes that wait in this process for each browser."""
        server = self.sidecar.runner.server
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
    *,
    pods: int = 1,
    timing: Timing | None = None,
    limits: Limits | None = None,
    access: AccessConfig | None = None,
    metrics_port: int = 0,
) -> AsyncIterator[RunningSidecar]:
    logs = Logs()
    running = [await pod(logs) for _ in range(pods)]
    target = "ipv4:" + ",".join(f"127.0.0.1:{each.port}" for each in running)
    try:
        async with sidecar_before(target, timing=timing, limits=limits, access=access, metrics_port=metrics_port) as (
            started,
            http,
        ):
            yield RunningSidecar(started, logs, running, http)
    finally:
        for each in running:
            await each.kill()


@asynccontextmanager
async def sidecar_before(
    target: str,
    *,
    timing: Timing | None = None,
    limits: Limits | None = None,
    access: AccessConfig | None = None,
    metrics_port: int = 0,
) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    """Runs the sidecar before an order service, which may be a real one."""
    config = SidecarConfig(
        server=ServerConfig(host="127.0.0.1", grpc_port=0, shutdown_delay=0, shutdown_grace=1),
        access=access or open_access(),
        telemetry=TelemetryConfig.from_env(Env({"METRICS_PORT": str(metrics_port)})),
        http_port=0,
        product_target=target,
        order_target=target,
        timing=timing or Timing(),
        limits=limits or Limits(),
    )
    async with serving(config) as started:
        url = f"http://127.0.0.1:{started.http_port}"
        async with httpx.AsyncClient(base_url=url, timeout=10, limits=httpx.Limits(max_connections=None)) as http:
            yield started, http
