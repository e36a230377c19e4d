"""The load: a process that runs in a pod of the cluster, and takes commands.

It reads commands from standard input and writes a response to each to standard output, both as JSON, a line each:

    ["prepare", host, port, products, streams]  → {}    when there are so many products, and so many orders are watched
    ["start"]                                   → {}    clients arrive from now on
    ["progress"]                                → {"acknowledged": …, "age": …}
    ["stop"]                                    → {…}   no more arrive, all have responses, streams are up to date
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from tests.failover.load.http import Http
from tests.failover.load.shoppers import Shoppers
from tests.failover.load.streams import Streams

STOCK = 1_000_000
CATCH_UP = 30.0
"""Seconds after which an event counts as missed, from the last change on."""


class Load:
    """The shoppers and the watchers."""

    def __init__(self, host: str, port: int) -> None:
        http = Http(host, port)
        self.streams = Streams(http)
        self.shoppers = Shoppers(http, self.streams)
        self._began = 0.0

    def start(self) -> None:
        self._began = time.time()
        self.shoppers.start()

    def progress(self) -> dict[str, Any]:
        times = self.shoppers.tally.acknowledged
        return {"acknowledged": len(times), "age": time.time() - max(times, default=self._began)}

    async def stop(self) -> dict[str, Any]:
        ended = time.time()
        shoppers, streams = self.shoppers, self.streams
        await shoppers.stop()
        expected = shoppers.versions()
        await streams.until(expected, CATCH_UP)
        await asyncio.sleep(1)  # what would come twice comes now
        return self.report(ended)

    def report(self, ended: float) -> dict[str, Any]:
        """Returns what happened since the last report."""
        shoppers, streams, tally = self.shoppers, self.streams, self.shoppers.tally
        arrived = {
            (watch.order_id, version): moment
            for watch in streams.watches
            for version, moment in zip(watch.versions, watch.times, strict=True)
        }
        delays = [arrived[event] - moment for event, moment in shoppers.moved.items() if event in arrived]
        made = {
            "orders": [asdict(each) for each in tally.orders],
            "carts": [asdict(each) for each in tally.carts],
            "gap": tally.longest_gap(self._began, ended),
            "calls": tally.calls,
            "errors": tally.errors,
            "messages": tally.messages,
            "problems": tally.problems,
            "statuses": {key: order.status for key, order in shoppers.watched.items()},
            "seen": {each.order_id: each.versions for each in streams.watches},
            "live": streams.live,
            "streams": streams.counts,
            "slowest_event": max(delays, default=0.0),
        }
        shoppers.forget()
        streams.forget()
        return made


async def main() -> None:
    """Runs until its input ends."""
    commands = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    load: Load | None = None
    while line := await commands.readline():
        response: dict[str, Any] = {}
        match json.loads(line), load:
            case ["prepare", str(host), int(port), int(products), int(streams)], _:
                load = Load(host, port)
                await load.shoppers.stock_up(products, STOCK)
                await load.shoppers.watch(streams)
                response = load.report(time.time())
            case ["start"], Load():
                load.start()
            case ["progress"], Load():
                response = load.progress()
            case ["stop"], Load():
                response = await load.stop()
            case unknown, _:
                raise ValueError(f"no such command: {unknown}")
        sys.stdout.write(json.dumps(response) + "\n")
        sys.stdout.flush()
    if load:
        load.streams.close()


if __name__ == "__main__":
    asyncio.run(main())
