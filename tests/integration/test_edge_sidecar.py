"""The real edge before the real sidecar: what browsers meet when it crashes, when they do not read, and behind TLS."""

import asyncio
import os
import random
import re
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import httpx
from shop.product.v1 import product_pb2, product_pb2_grpc

from bench.http2 import Connection
from local.children import Child, start
from local.settings import free_ports
from sse.config import Limits, Timing
from tests.support.access import credentials
from tests.support.edge import edge
from tests.support.eventually import eventually
from tests.support.sidecar import EVENTS, Logs, pod, sidecar

HISTORY = ("PLACED", "PROCESSED", "DELIVERED", "RECEIVED")


class SidecarProcess:
    """The sidecar as a process of its own, to be killed and started again."""

    def __init__(self, order_port: int, logs: Path) -> None:
        self.http_port, self._grpc_port = free_ports(2)
        self._order = f"ipv4:127.0.0.1:{order_port}"
        self._logs = logs
        self._child: Child | None = None

    def start(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "LISTEN_HOST": "127.0.0.1",
            "INTERNAL_CREDENTIALS": str(credentials()),
            "HTTP_PORT": str(self.http_port),
            "GRPC_PORT": str(self._grpc_port),
            "ORDER_TARGET": self._order,
            "PRODUCT_TARGET": self._order,
        }
        self._child = start("sse", [sys.executable, "-m", "sse"], self._logs, environment)

    def kill(self) -> None:
        if self._child:
            self._child.process.kill()
            self._child.process.wait()

    async def listens(self) -> None:
        async def connected() -> bool:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
                writer.close()
                return True
            return False

        await eventually(connected, 20)


class Visits:
    """What many EventSources are answered, who come and go all the time."""

    def __init__(self, url: str, live: list[str], over: list[str]) -> None:
        self._url = url
        self._live, self._over = live, over
        self.statuses: Counter[int] = Counter()
        self.told_to_return = 0
        self.broken = 0

    @asynccontextmanager
    async def going_on(self, visitors: int) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=self._url, timeout=10, limits=httpx.Limits(max_connections=None)) as http:
            tasks = [asyncio.create_task(self._visit(http)) for _ in range(visitors)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in outcomes if not isinstance(each, asyncio.CancelledError)]

    async def _visit(self, http: httpx.AsyncClient) -> None:
        while True:
            seen = random.choice([{}, {"Last-Event-ID": "1"}, {"Last-Event-ID": "4"}])
            path = f"/api/orders/stream?order_id={random.choice(self._live + self._over)}"
            try:
                async with http.stream("GET", path, headers={**EVENTS, **seen}) as answer:
                    self.statuses[answer.status_code] += 1
                    with suppress(TimeoutError):
                        async with asyncio.timeout(random.choice([0.05, 0.2, 3])):
                            text = "".join([part async for part in answer.aiter_text()])
                            self.told_to_return += bool(re.fullmatch(r"retry: \d{4}\n\n", text))
            except httpx.TransportError:
                self.broken += 1  # an EventSource comes back from that
                await asyncio.sleep(0.05)


async def test_event_source_gets_200_or_204_while_sidecar_is_killed(
    tmp_path: Path,
) -> None:
    """With any other status it would give up for good."""
    logs = Logs()
    live = [logs.place("PLACED") for _ in range(20)]
    over = [logs.place(*HISTORY) for _ in range(20)]
    order = await pod(logs)
    process = SidecarProcess(order.port, tmp_path)
    async with edge(sse_http_port=process.http_port) as shop:
        visits = Visits(shop.url, live, over)
        try:
            async with visits.going_on(60):
                for _ in range(4):
                    process.start()
                    await process.listens()
                    await asyncio.sleep(0.7)
                    process.kill()
                    await asyncio.sleep(0.3)
        finally:
            process.kill()
            await order.kill()
    assert set(visits.statuses) == {200, 204}, visits.statuses
    assert visits.told_to_return, "some came while it was away"
    assert visits.broken, "some were with it when it was killed"


class Reading:
    """A reader of one HTTP/2 stream."""

    def __init__(self) -> None:
        self.status = 0
        self.data = b""
        self.over = asyncio.Event()

    def responded(self, status: int) -> None:
        self.status = status

    def received(self, data: bytes) -> None:
        self.data += data

    def ended(self) -> None:
        self.over.set()

    @property
    def ids(self) -> list[int]:
        return [int(number) for number in re.findall(rb"id: (\d+)\n", self.data)]


async def test_tls_connection_carries_streams_rest_and_grpc(certificate: Path) -> None:
    """And all of them together are more than Envoy lets through by default, which is 1,024."""
    trust = ssl.create_default_context(cafile=str(certificate / "tls.crt"))
    trust.set_alpn_protocols(["h2"])
    limits = Limits(streams_per_client=0)
    async with (
        sidecar(limits=limits) as running,
        edge(tls=certificate, sse_http_port=running.sidecar.http_port) as shop,
    ):
        authority = shop.target.replace("127.0.0.1", "localhost")
        host, _, port = shop.target.partition(":")
        streams: dict[str, Reading] = {}
        connections = []
        for _ in range(10):
            transport, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection("https"), host, int(port), ssl=trust, server_hostname="localhost"
            )
            assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            connections.append(connection)
            for _ in range(120):
                order_id, reading = running.logs.place("PLACED"), Reading()
                path = f"/api/v1/orders/{order_id}/status/stream"
                connection.get(authority, path, [("accept", "text/event-stream")], reading)
                streams[order_id] = reading

        async def all_began() -> bool:
            return all(reading.ids == [1] for reading in streams.values())

        await eventually(all_began)
        rest = Reading()
        connections[0].get(authority, "/api/v1/products/abc", [], rest)
        await asyncio.wait_for(rest.over.wait(), 5)
        assert (rest.status, b'"id":"abc"' in rest.data) == (200, True)
        credentials = grpc.ssl_channel_credentials((certificate / "tls.crt").read_bytes())
        async with grpc.aio.secure_channel(authority, credentials) as channel:
            stub = product_pb2_grpc.ProductServiceStub(channel)
            assert (await stub.GetProduct(product_pb2.GetProductRequest(id="abc"))).id == "abc"
        for status in HISTORY[1:]:
            for order_id in streams:
                running.logs.add(order_id, status)
        for reading in streams.values():
            await asyncio.wait_for(reading.over.wait(), 10)
            assert (reading.status, reading.ids) == (200, [1, 2, 3, 4])
            assert reading.data.endswith(b"event: completed\ndata: stream closed\n\n")
        for connection in connections:
            connection.close()


async def test_sidecar_cuts_browser_that_does_not_read() -> None:
    """The edge holds little of what waits, so the sidecar notices."""
    async with (
        sidecar(timing=Timing(slow_reader_timeout=0.5)) as running,
        edge(sse_http_port=running.sidecar.http_port) as shop,
    ):
        order_id = running.logs.place("PLACED")
        host, _, port = shop.target.partition(":")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((host, int(port)))
            slow.sendall(f"GET /api/orders/stream?order_id={order_id} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())

            async def there() -> bool:
                return len(running.sidecar.connections) == 1

            async def cut() -> bool:
                return len(running.sidecar.connections) == 0

            await eventually(there)
            for _ in range(12):  # more than the kernel holds, twice
                running.logs.add(order_id, "PROCESSED", "x" * 1_000_000)
                await asyncio.sleep(0.02)
            await eventually(cut)
