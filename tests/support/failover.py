"""Failovers of the order service's database on loopback, under load: `python -m tests.support.failover [CASE …]`.

For each case it prints how many seconds after the database took writes again the service did, what its callers got
meanwhile, and what was lost or doubled.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

from bench.table import markdown
from tests.support.carts import HeldCart, guest_cart, quantities
from tests.support.order import PATHS, A, FakeStock, OrderShop, create_request, order_shop
from tests.support.pooler import Pooler, running_pooler
from tests.support.replication import Replication
from tests.support.watching import Watching

ATTEMPT_TIMEOUT = 2.0
"""Seconds that a client of the load waits for each attempt of a call."""

RETRY_PAUSE = 0.05
"""Seconds between two attempts of a call."""

WATCHED = 10
"""Orders that are moved and watched."""

WRITERS = 3
"""Clients that place orders."""

TRANSIENT = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
"""Codes that a client of the load retries."""

OUTAGE = 2.0
"""Seconds between the loss of a primary and the promotion of a standby, as with an operator."""

SETTLE_TIME = 1.0
"""Seconds for which the load goes on after the database has come back."""


POOLER = {"server_login_retry": "1", "server_connect_timeout": "3", "query_wait_timeout": "5"}
"""Settings of a pooler before a database that fails over. By default it repeats an error for 15 seconds."""


class Load:
    """Clients that place orders, read one, add to a cart, and move orders that others watch."""

    def __init__(self, shop: OrderShop) -> None:
        self._shop = shop
        self._stopping = False
        self.acknowledged: list[str] = []
        """The ids of placed orders."""
        self.added = 0
        """Acknowledged pieces in the cart."""
        self.codes: Counter[str] = Counter()
        """Failed attempts, by code."""
        self.texts: Counter[str] = Counter()
        """Failed attempts, by code and message."""
        self.successes: dict[str, list[float]] = {"order": [], "read": [], "cart": [], "event": []}
        """When something succeeded, by kind; by `time.monotonic`."""
        self.watchers: list[Watching] = []

    async def _call(self, kind: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Attempts a call until it succeeds. Returns None if it fails for good."""
        while True:
            try:
                result = await call()
            except grpc.aio.AioRpcError as error:
                self.codes[error.code().name] += 1
                self.texts[f"{error.code().name} {error.details()}"] += 1
                if error.code().name not in TRANSIENT or self._stopping:
                    return None
                await asyncio.sleep(RETRY_PAUSE)
            else:
                self.successes[kind].append(time.monotonic())
                await asyncio.sleep(0.01)
                return result

    async def _place_orders(self) -> None:
        while not self._stopping:
            request = create_request(request_id=str(uuid4()))
            order = await self._call("order", partial(self._shop.orders.CreateOrder, request, timeout=ATTEMPT_TIMEOUT))
            if order:
                self.acknowledged.append(order.id)

    async def _read_order(self, order_id: str) -> None:
        request = order_pb2.GetOrderRequest(id=order_id)
        while not self._stopping:
            await self._call("read", lambda: self._shop.orders.GetOrder(request, timeout=ATTEMPT_TIMEOUT))

    async def _add_to_cart(self, cart: HeldCart) -> None:
        while not self._stopping and self.added < 500:
            request = cart_pb2.AddCartItemRequest(id=cart.id, product_id=A, quantity=1, request_id=str(uuid4()))
            add = partial(self._shop.carts.AddCartItem, request, metadata=cart.metadata, timeout=ATTEMPT_TIMEOUT)
            done = await self._call("cart", add)
            self.added += bool(done)

    async def _move_orders(self, order_ids: list[str]) -> None:
        """Moves orders, one after the other and each to its end, so that there are events at all times."""
        for order_id in order_ids:
            for status in PATHS["RECEIVED"]:
                await self._call("event", partial(self._shop.move, status, order_id, timeout=ATTEMPT_TIMEOUT))
                await asyncio.sleep(0.2)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the clients during the block, and then checks what they have seen."""
        placed = [await self._shop.create() for _ in range(WATCHED)]
        self.cart = await guest_cart(self._shop.carts)
        self.watchers = [Watching(self._shop, order.id) for order in placed]
        for watching in self.watchers:
            await watching.until(1)
        moving = asyncio.create_task(self._move_orders([order.id for order in placed]))
        clients = [
            *(asyncio.create_task(self._place_orders()) for _ in range(WRITERS)),
            asyncio.create_task(self._read_order(placed[0].id)),
            asyncio.create_task(self._add_to_cart(self.cart)),
        ]
        await asyncio.sleep(0.5)
        yield
        self._stopping = True
        await asyncio.gather(*clients)
        self._stopping = False
        await moving

    async def check(self, pg: Replication) -> dict[str, int]:
        """Returns how many orders were lost, pieces lost or doubled, and watchers that missed or doubled an event."""
        missed = 0
        for watching in self.watchers:
            try:
                await watching.until(4, 10)
                watching.check()
            except AssertionError:
                missed += 1
        rows = await pg.instances[pg.primary].run("SELECT id::text FROM orders", "order")
        ids = {row[0] for row in rows}
        cart = await self.cart.get()
        return {
            "lost": sum(each not in ids for each in self.acknowledged),
            "pieces": quantities(cart).get(A, 0) - self.added,
            "missed": missed,
        }

    def first_success(self, kind: str, since: float) -> float:
        """Returns how many seconds after a time a call of this kind succeeded first."""
        return next((when - since for when in self.successes[kind] if when >= since), float("inf"))

    def longest_gap(self, kind: str) -> float:
        """Returns the longest time between two successes, in seconds."""
        times = self.successes[kind]
        return max((b - a for a, b in pairwise(times)), default=float("inf"))


@dataclass
class Scene:
    """What a case can break."""

    pg: Replication
    pooler: Pooler | None = None


Case = Callable[[Scene], Awaitable[float]]
"""Breaks something. Returns when the database took writes again, by `time.monotonic`."""


async def _promoted(pg: Replication) -> float:
    await pg.promote(1)
    return time.monotonic()


async def killed(scene: Scene) -> float:
    """The primary is killed, and a standby takes over."""
    scene.pg.instances[0].kill()
    await asyncio.sleep(OUTAGE)
    return await _promoted(scene.pg)


async def switchover(scene: Scene) -> float:
    """The primary shuts down, and a standby takes over; the old one comes back as a standby."""
    await asyncio.to_thread(scene.pg.instances[0].stop)
    back = await _promoted(scene.pg)
    await scene.pg.rejoin(0)
    return back


async def demoted(scene: Scene) -> float:
    """The old primary comes back as a standby while the Service still leads to it."""
    await asyncio.to_thread(scene.pg.instances[0].stop)
    await scene.pg.promote(1, route=False)
    await scene.pg.rejoin(0)
    await asyncio.sleep(OUTAGE)
    scene.pg.route(1)
    return time.monotonic()


async def lost(scene: Scene) -> float:
    """The primary's host vanishes: its connections hang, and new ones to it do, too."""
    scene.pg.lose(0)
    await asyncio.sleep(2 * OUTAGE)
    return await _promoted(scene.pg)


async def isolated(scene: Scene) -> float:
    """The primary's host vanishes for its open connections while the Service leads to the new primary at once."""
    scene.pg.lose(0)
    await scene.pg.promote(1)
    return time.monotonic()


async def frozen(scene: Scene) -> float:
    """The primary's processes hang; its connections stay open."""
    scene.pg.instances[0].freeze()
    await asyncio.sleep(2 * OUTAGE)
    return await _promoted(scene.pg)


async def restarted(scene: Scene) -> float:
    """The same primary crashes and starts again."""
    scene.pg.instances[0].kill()
    await asyncio.sleep(OUTAGE)
    scene.pg.instances[0].start()
    while not await scene.pg.instances[0].responds():
        await asyncio.sleep(0.01)
    return time.monotonic()


async def pooler_restarted(scene: Scene) -> float:
    """The pooler ends and comes back."""
    assert scene.pooler
    await asyncio.to_thread(scene.pooler.stop)
    await asyncio.sleep(2)
    await scene.pooler.start()
    return time.monotonic()


CASES: dict[str, Case] = {
    each.__name__: each for each in (killed, switchover, demoted, lost, isolated, frozen, restarted, pooler_restarted)
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a case has cost."""

    case: str
    pooler: bool
    orders_s: float
    """Seconds from the first write that the database would have taken to the first order; likewise below."""
    reads_s: float
    carts_s: float
    events_s: float
    gap_s: float
    """The longest time without an order, in seconds."""
    failed: dict[str, int]
    """Failed attempts, by code."""
    texts: dict[str, int]
    """Failed attempts, by code and message."""
    lost: int
    pieces: int
    missed: int
    ready: bool
    """Whether the service was ready all the time."""


async def measure(name: str, folder: Path, *, pooled: bool) -> Outcome:
    """Runs one case on new databases."""
    folder.chmod(0o755)
    async with AsyncExitStack() as stack:
        pg = await stack.enter_async_context(Replication(folder).running())
        conninfo = pg.conninfo("order")
        pooler = await stack.enter_async_context(running_pooler(conninfo, POOLER)) if pooled else None
        parts = pooler.parts if pooler else ""
        shop = await stack.enter_async_context(order_shop(conninfo, FakeStock(), DATABASE_POOLER_URL=parts))
        load = Load(shop)
        ready = True

        async def watch_readiness() -> None:
            nonlocal ready
            while True:
                ready = ready and shop.server.ready
                await asyncio.sleep(0.1)

        watching = asyncio.create_task(watch_readiness())
        async with load.running():
            back = await CASES[name](Scene(pg, pooler))
            deadline = back + 30
            while time.monotonic() < deadline and load.first_success("order", back) == float("inf"):
                await asyncio.sleep(0.05)
            await asyncio.sleep(SETTLE_TIME)
        watching.cancel()
        checked = await load.check(pg)
        return Outcome(
            case=name,
            pooler=pooled,
            orders_s=load.first_success("order", back),
            reads_s=load.first_success("read", back),
            carts_s=load.first_success("cart", back),
            events_s=load.first_success("event", back),
            gap_s=load.longest_gap("order"),
            failed=dict(load.codes),
            texts=dict(load.texts),
            ready=ready,
            **checked,
        )


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.failover", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--pooler", action="store_true", help="put a PgBouncer in between")
    parser.add_argument("--verbose", action="store_true", help="show the service's log and the messages of errors")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.CRITICAL, format="%(asctime)s %(name)s %(message)s"
    )
    names = arguments.cases or [name for name in CASES if arguments.pooler or name != "pooler_restarted"]
    rows: list[list[str]] = []
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory(prefix="shop-failover-", dir="/dev/shm") as folder:
            found = asyncio.run(measure(name, Path(folder), pooled=arguments.pooler))
        if arguments.verbose:
            print(found.texts)
        failed = failed or bool(found.lost or found.pieces or found.missed)
        seconds = (found.orders_s, found.reads_s, found.carts_s, found.events_s, found.gap_s)
        codes = ", ".join(f"{code} {count}" for code, count in sorted(found.failed.items()))
        counts = (found.lost, found.pieces, found.missed)
        rows.append([name, *(f"{each:.2f}" for each in seconds), codes, *map(str, counts), str(found.ready)])
        print(rows[-1], flush=True)
    print(markdown(HEADERS, rows))
    return int(failed)


HEADERS = [
    "case",
    "orders s",
    "reads s",
    "carts s",
    "moves s",
    "longest gap s",
    "failed",
    "lost",
    "pieces",
    "missed",
    "ready",
]

if __name__ == "__main__":
    sys.exit(main())
