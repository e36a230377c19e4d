"""An HTTP client for many cheap requests: HTTP/1.1 on connections that stay open, as in browsers."""

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any

CONNECT_TIMEOUT = 5.0
"""Seconds for a new connection."""
REQUEST_TIMEOUT = 15.0
"""Seconds for a response. The edge's own limit for a call is 10 seconds."""
MAX_IDLE = 20
"""How many unused connections stay open."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RequestFailed(Exception):
    """There was no response. The message is CONNECTION or TIMEOUT."""


class Http:
    """Requests to one address."""

    def __init__(self, host: str, port: int) -> None:
        self._authority = f"{host}:{port}"
        # The address of a Service stays the same, so one query to DNS is enough.
        self._address = (socket.gethostbyname(host), port)
        self._idle: list[Connection] = []

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Returns the status and the JSON of a response. Raises RequestFailed if there is none."""
        content = b"" if body is None else json.dumps(body).encode()
        more = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        message = self.head(method, path, more) + content
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await self._exchange(message)
        except TimeoutError:
            raise RequestFailed("TIMEOUT") from None
        except (OSError, EOFError, ValueError):
            raise RequestFailed("CONNECTION") from None

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._authority}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self) -> Connection:
        """Opens a connection. Raises OSError."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await asyncio.open_connection(*self._address)
        except TimeoutError:
            raise OSError("connect timeout") from None

    async def _exchange(self, message: bytes) -> tuple[int, Any]:
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._on(connection, message)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                # The edge has closed it meanwhile. Browsers send the request again on another one then.
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    raise
        return await self._on(await self.connect(), message)

    async def _on(self, connection: Connection, message: bytes) -> tuple[int, Any]:
        reader, writer = connection
        try:
            writer.write(message)
            status, headers = await read_head(reader)
            if "content-length" in headers:
                content = await reader.readexactly(int(headers["content-length"]))
            else:
                content = b"".join([part async for part in chunks(reader)])
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "close" or len(self._idle) >= MAX_IDLE:
            writer.close()
        else:
            self._idle.append(connection)
        return status, json.loads(content) if content else None


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Returns the status and the headers of a response, whose names are in lower case."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines if line]
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


class chunks:  # noqa: N801 - used like a function
    """Iterates over the chunks of a body. Raises IncompleteReadError if it breaks off."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def __aiter__(self) -> "chunks":
        return self

    async def __anext__(self) -> bytes:
        size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
        content = await self._reader.readexactly(size + 2)
        if not size:
            raise StopAsyncIteration
        return content[:-2]
