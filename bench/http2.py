"""Thousands of GET streams over a few HTTP/2 connections, as browsers behind TLS share theirs.

Over HTTP/1.1 each watcher would be a connection of its own, and Envoy would need two open files for each.
"""

import asyncio
from typing import Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

STREAMS_PER_CONNECTION = 100
"""Streams of one connection: as many as browsers open."""


class Reader(Protocol):
    """Receives what happens on a stream."""

    def responded(self, status: int) -> None:
        """The response has begun, with this HTTP status."""
        ...

    def received(self, data: bytes) -> None:
        """Some of the body has arrived."""
        ...

    def ended(self) -> None:
        """The stream has ended, cleanly or not."""
        ...


class Connection(asyncio.Protocol):
    """One connection to an edge."""

    def __init__(self, scheme: str = "http") -> None:
        self._scheme = scheme
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._readers: dict[int, Reader] = {}
        self._transport: asyncio.Transport | None = None
        self.usable = True

    @property
    def live(self) -> int:
        """How many streams are open."""
        return len(self._readers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        self._flush()

    def get(self, authority: str, path: str, headers: list[tuple[str, str]], reader: Reader) -> None:
        """Opens a stream."""
        stream = self._h2.get_next_available_stream_id()
        self._readers[stream] = reader
        fixed = [(":method", "GET"), (":scheme", self._scheme), (":authority", authority), (":path", path)]
        self._h2.send_headers(stream, fixed + headers, end_stream=True)
        self._flush()

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in self._readers:
                    self._readers[event.stream_id].received(event.data)
            elif isinstance(event, ResponseReceived):
                status = next(value for name, value in event.headers if name == b":status")
                self._readers[event.stream_id].responded(int(status))
            elif isinstance(event, StreamEnded | StreamReset):
                self._end(event.stream_id)
            elif isinstance(event, ConnectionTerminated):
                self.usable = False
        self._flush()

    def _end(self, stream: int | None) -> None:
        reader = self._readers.pop(stream or 0, None)
        if reader:
            reader.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        for stream in list(self._readers):
            self._end(stream)

    def close(self) -> None:
        if self._transport:
            self._h2.close_connection(ErrorCodes.NO_ERROR)
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport:
            self._transport.write(data)


class Pool:
    """Connections to one edge, each with up to STREAMS_PER_CONNECTION streams."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._connections: list[Connection] = []
        self._lock = asyncio.Lock()

    async def get(self, path: str, headers: list[tuple[str, str]], reader: Reader) -> None:
        """Opens a stream, on a new connection if the others are full. Raises OSError if the edge cannot be reached."""
        async with self._lock:
            self._connections = [each for each in self._connections if each.usable]
            connection = next((each for each in self._connections if each.live < STREAMS_PER_CONNECTION), None)
            if connection is None:
                _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
                self._connections.append(connection)
        connection.get(f"{self._host}:{self._port}", path, headers, reader)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
