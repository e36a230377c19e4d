"""A TCP proxy between two parts of the shop, whose connections can be made to hang or to be late."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.eventually import eventually

CHUNK = 65_536

Chunk = tuple[float, bytes]
"""When to forward what; nothing is the end."""


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    target: int
    writers: list[asyncio.StreamWriter]
    flowing: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Forwards to the port `target` on loopback. Everything can be changed while it runs."""

    def __init__(self, port: int) -> None:
        self.target = port
        """Where new connections go. Open ones stay where they are."""
        self.lost_targets: set[int] = set()
        """Targets that do not respond any more: connections to them are accepted, but nothing is forwarded."""
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lateness = 0.0
        """Seconds by which responses are delayed. They keep their order."""
        self.silent = False
        """Whether new connections are accepted, but nothing is forwarded."""
        self.refusing = False
        """Whether new connections are ended at once."""

    def hang(self, target: int | None = None) -> int:
        """Leaves connections half open: nothing is forwarded on them, and neither end notices.

        Later connections work. Returns how many connections are half open now.

        Args:
            target: Only connections to this port; by default all.
        """
        links = [link for link in self._links if target in (None, link.target)]
        for link in links:
            link.flowing.clear()
        return len(links)

    def links_to(self, target: int) -> int:
        """Returns how many connections to a port are open."""
        return sum(link.target == target for link in self._links)

    def refuse(self) -> None:
        """Ends all connections at both ends, and each new one at once, until `refusing` is set back."""
        self.refusing = True
        self.cut()

    def cut(self) -> None:
        """Ends all connections at both ends, whatever is under way on them. Later connections work."""
        for link in self._links:
            for writer in link.writers:
                writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        link = Link(self.target, [writer])
        self._links.add(link)
        try:
            if self.silent or link.target in self.lost_targets:
                await asyncio.Event().wait()
            link.flowing.set()
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", link.target)
                link.writers.append(back)
                ends = [
                    asyncio.create_task(self._pump(link, reader, back, answers=False)),
                    asyncio.create_task(self._pump(link, there, writer, answers=True)),
                ]
                try:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for end in ends:
                        end.cancel()
                    await asyncio.gather(*ends, return_exceptions=True)
        finally:
            self._links.discard(link)
            for each in link.writers:
                each.close()
            for each in link.writers:
                with suppress(OSError):
                    await each.wait_closed()

    async def _pump(
        self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """Forwards one direction until it ends."""
        clock = asyncio.get_running_loop().time
        waiting: asyncio.Queue[Chunk] = asyncio.Queue()

        async def read() -> None:
            data = b" "
            while data:
                data = await source.read(CHUNK)
                waiting.put_nowait((clock() + (self.lateness if answers else 0), data))

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0, due - clock()))
                await link.flowing.wait()
                if not data:
                    return
                target.write(data)
                await target.drain()


async def lose_response(proxy: Proxy, call: Awaitable[object], done: Callable[[], Awaitable[bool]]) -> None:
    """Lets a call's statement reach the database, and cuts the connection before the response is back."""
    proxy.lateness = 30
    task = asyncio.ensure_future(call)
    await eventually(done, 5)
    proxy.lateness = 0
    proxy.cut()
    await task
