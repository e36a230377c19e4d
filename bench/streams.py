"""How the live streams do: `python -m bench streams`, or `make bench-streams`.

Watchers follow an order each, through the real Envoy and sidecar; transitions are made with OrderService's RPCs. The
delay of an event is the time from the beginning of the transaction that wrote it (`updated_at`, by the database's
clock, down to the millisecond) until a watcher has read it, on the same machine. So it has the commit in it, and is too
long rather than too short. What watchers saw is compared, version by version, with the event logs in the database.
"""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.bench_shop import BenchShop, bench_shop
from bench.files import allow
from bench.orders import STEPS, Driver, place, versions
from bench.result import Result, quantile, table
from bench.table import save
from local.settings import REPOSITORY

RESULT = REPOSITORY / "build" / "streams.json"

CONNECTS = 500.0
"""Watchers that come in a second."""

SETTLE = 30.0
"""Seconds until the last event must have arrived."""

IDLE = 16.0
"""Seconds that are measured with nothing but heartbeats: each watcher gets one."""

KINDS = ("order", "sse", "envoy")
"""What is measured: all processes of a kind together."""


class WatchProcess:
    """The watchers, in a process of their own (bench/watch.py says what it takes)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *command: Any, patience: float = 120) -> list[Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(patience):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the watchers' process ended")
        answer: list[Any] = json.loads(line)
        return answer[1:]


@asynccontextmanager
async def watch_process() -> AsyncIterator[WatchProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.watch"),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    try:
        yield WatchProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def compare(seen: Mapping[str, list[int]], logs: Mapping[str, list[int]]) -> tuple[int, int]:
    """How many events were missed (or came out of turn), and how many came twice (or never happened)."""
    missed = doubled = 0
    for order_id, log in logs.items():
        got = seen.get(order_id, [])
        doubled += sum(count - 1 for count in Counter(got).values()) + len(set(got) - set(log))
        in_turn = list(dict.fromkeys(got))
        missed += len(set(log) - set(got)) + (in_turn != sorted(in_turn))
    return missed, doubled


async def steady(watchers: int, per_second: float, seconds: float) -> Result:
    """One order process, one sidecar, one Envoy; each watcher follows an order of its own."""
    with bench_shop() as shop:
        await shop.ready()
        conninfo = shop.postgres.service("order")
        order_ids = place(conninfo, watchers)
        driver = Driver(shop.order_target, order_ids)
        async with watch_process() as process:
            grown = await _watch(shop, process, order_ids)
            await asyncio.sleep(2)
            idle = await _cpu_percent(shop, IDLE)
            cpu = shop.cpu("order") + shop.cpu("sse")
            await process.ask("measure")
            # Two steps of the three: no stream ends while it is measured.
            rate = await driver.run(per_second, int(per_second * seconds), last_step=2)
            logs = versions(conninfo, order_ids)
            events = sum(len(log) for log in logs.values())
            (report,) = await process.ask("report", events, 0, SETTLE)
            cpu = shop.cpu("order") + shop.cpu("sse") - cpu
            kib = grown()
            shop.check()
        return _result("steady", rate, report, logs, kib=kib, idle=idle, cpu=cpu, kills=0, completed=0)


Chaos = Callable[[BenchShop], Awaitable[int]]
"""Kills parts of a shop and starts them again; answers how many."""


async def faults(watchers: int, per_second: float, chaos: Chaos, *, orders: int = 3, edges: int = 2) -> Result:
    """Order replicas and edges, of which parts are killed and started again; watchers come back through any edge. At
    the end every order is RECEIVED and every stream completed."""
    with bench_shop(orders, edges) as shop:
        await shop.ready()
        conninfo = shop.postgres.service("order")
        order_ids = place(conninfo, watchers)
        driver = Driver(shop.order_target, order_ids)
        async with watch_process() as process:
            grown = await _watch(shop, process, order_ids)
            kib = grown()
            cpu = shop.cpu("order") + shop.cpu("sse")
            await process.ask("measure")
            killing = asyncio.ensure_future(chaos(shop))
            rate = await driver.run(per_second, len(STEPS) * watchers)
            kills = await killing
            logs = versions(conninfo, order_ids)
            events = sum(len(log) for log in logs.values())
            (report,) = await process.ask("report", events, watchers, SETTLE)
            cpu = shop.cpu("order") + shop.cpu("sse") - cpu
            shop.check()
        return _result("killed", rate, report, logs, kib=kib, idle={}, cpu=cpu, kills=kills, completed=watchers)


async def kill_at_random(shop: BenchShop, seconds: float = 60) -> int:
    """Kills an order replica or a sidecar every two seconds or so."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    kills = 0
    while loop.time() < end:
        name = random.choice(shop.names("order") + shop.names("sse"))
        shop.kill(name)
        kills += 1
        await asyncio.sleep(random.uniform(0, 1))
        shop.launch(name)
        await asyncio.sleep(random.uniform(0.5, 3))
    await shop.ready()
    return kills


async def _watch(shop: BenchShop, process: WatchProcess, order_ids: Sequence[str]) -> Callable[[], Mapping[str, float]]:
    """Has all orders watched; answers what tells by how many KiB per watcher the kinds have grown."""
    # What a process needs once is not counted by watcher.
    few = place(shop.postgres.service("order"), 100)
    async with watch_process() as first:
        await first.ask("watch", shop.edge_ports, few, CONNECTS)
        await Driver(shop.order_target, few).run(200, 300)
        await first.ask("report", 400, 100, SETTLE)
    before = {kind: shop.resident(kind) for kind in KINDS}
    (started,) = await process.ask("watch", shop.edge_ports, order_ids, CONNECTS)
    if started < len(order_ids):
        print(f"    only {started} of {len(order_ids)} watchers have begun", file=sys.stderr)
    return lambda: {kind: max(0, shop.resident(kind) - before[kind]) / 1024 / len(order_ids) for kind in KINDS}


async def _cpu_percent(shop: BenchShop, seconds: float) -> dict[str, float]:
    before = {kind: shop.cpu(kind) for kind in KINDS}
    await asyncio.sleep(seconds)
    return {kind: 100 * (shop.cpu(kind) - used) / seconds for kind, used in before.items()}


def _result(
    case: str,
    rate: float,
    report: Mapping[str, Any],
    logs: Mapping[str, list[int]],
    *,
    kib: Mapping[str, float],
    idle: Mapping[str, float],
    cpu: float,
    kills: int,
    completed: int,
) -> Result:
    """`completed` is how many streams had to end."""
    delays = sorted(report["delays"])
    missed, doubled = compare(report["versions"], logs)
    counts = report["counts"]
    print(f"    {counts}, completed {report['completed']}, killed {kills}", file=sys.stderr)
    return Result(
        case=case,
        watchers=len(logs),
        changes_per_s=round(rate, 1),
        p50_ms=quantile(delays, 0.5),
        p99_ms=quantile(delays, 0.99),
        p999_ms=quantile(delays, 0.999),
        missed=missed,
        doubled=doubled,
        given_up=sum(count for name, count in counts.items() if name.startswith("status ") and name != "status 204"),
        unfinished=max(0, completed - report["completed"]),
        kib_per_watcher=round(kib["order"] + kib["sse"], 1),
        kib_per_watcher_order=round(kib["order"], 1),
        kib_per_watcher_sse=round(kib["sse"], 1),
        kib_per_watcher_envoy=round(kib["envoy"], 1),
        cpu_s_per_1000_events=round(1000 * cpu / len(delays), 2) if delays else 0.0,
        idle_cpu_percent=round(idle["order"] + idle["sse"], 1) if idle else None,
        idle_cpu_percent_envoy=round(idle["envoy"], 1) if idle else None,
        kills=kills,
        reconnects=counts.get("reconnects", 0),
    )


CASES: Mapping[str, Callable[[], Awaitable[Result]]] = {
    "1000": lambda: steady(1_000, 100, 20),
    "10000": lambda: steady(10_000, 200, 60),
    "faults": lambda: faults(2_000, 100, kill_at_random),
}

OPEN_FILES = 10_000 + 500
"""What a process needs where there are most watchers."""


async def run(names: Sequence[str]) -> int:
    """Runs the cases of these names, or all; answers the exit status."""
    allow(OPEN_FILES)
    results = []
    for name in names or CASES:
        print(f"{name}, load average {os.getloadavg()[0]:.1f} …", file=sys.stderr)
        results.append(await CASES[name]())
    save(results, RESULT)
    print(table(results))
    return 0 if all(each.ok for each in results) else 1
