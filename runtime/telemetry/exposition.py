"""The page that Prometheus reads: `/metrics`, on a port of its own."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from runtime.http import listen

PATH = "/metrics"

COLLECT_INTERVAL = 0.1
"""The shortest time between the starts of two collections, in seconds. However often somebody asks, calls hardly feel
it."""

Encode = Callable[[CollectorRegistry], bytes]

_KNOWN = re.compile(r"[^;]*; version=(0\.0\.4|1\.0\.0);.*")
"""The content types that are served. Each has a collection of its own, and a client can invent versions."""


class Page:
    """The metrics as text. All who ask while metrics are being collected share the next collection."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._next: dict[str, asyncio.Task[bytes]] = {}
        """Collections that have not begun, by content type."""
        self._one_at_a_time = asyncio.Lock()
        self._start_time = 0.0

    async def response(self, request: web.Request) -> web.Response:
        """Returns the metrics as they are now or a little later."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        if not _KNOWN.fullmatch(content_type):
            encode, content_type = choose_encoder("")
        if (collection := self._next.get(content_type)) is None:
            collection = self._next[content_type] = asyncio.create_task(self._collect(encode, content_type))
        # One who leaves does not end it for the others.
        text = await asyncio.shield(collection)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _collect(self, encode: Encode, content_type: str) -> bytes:
        clock = asyncio.get_running_loop().time
        async with self._one_at_a_time:
            await asyncio.sleep(self._start_time + COLLECT_INTERVAL - clock())
            del self._next[content_type]
            self._start_time = clock()
            # In a thread: collecting takes milliseconds, in which no call would be served.
            return await asyncio.to_thread(encode, self._registry)


@asynccontextmanager
async def exposed(registry: CollectorRegistry, host: str, port: int) -> AsyncIterator[int]:
    """Serves the metrics of a registry. Yields the port.

    Args:
        registry: What is served.
        host: The address to listen on.
        port: The port; 0 leaves the choice to the system.

    Raises:
        OSError: The port is taken.
    """
    application = web.Application()
    application.router.add_get(PATH, Page(registry).response)
    runner = web.AppRunner(application, access_log=None)
    try:
        await listen(runner, host, port)
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
