"""How the live streams do: `python -m bench streams`, or `make bench-streams`.

Watchers follow an order each, through the real Envoy and sidecar; transitions are made with OrderService's RPCs. The
delay of an event is the time from the beginning of the transaction that wrote it (`updated_at`, by the database's
clock, down to the millisecond) until a watcher has read it, on the same machine. So it has the commit in it, and is too
long rather than too short. What watchers saw is compared, version by version, with the event logs in the database.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bench.orders import Driver, place, versions
from bench.shop import BenchShop, bench_shop
from local.settings import REPOSITORY

RESULT = REPOSITORY / "build" / "streams.json"

CONNECTS = 500.0
"""Watchers that come in a second."""

SETTLE = 30.0
"""Seconds until the last event must have arrived."""

IDLE = 16.0
"""Seconds that are measured with nothing but heartbeats: each watcher gets one."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table. Memory is growth of what the kernel calls resident, by watcher."""

    case: str
    watchers: int
    changes_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    missed: int
    doubled: int
    kib_per_watcher: float
    """In order and sse together."""
    kib_per_watcher_order: float
    kib_per_watcher_sse: float
    kib_per_watcher_envoy: float
    cpu_s_per_1000_events: float
    """In order and sse together, the transitions' own cost included."""
    idle_cpu_percent: float
    """Of one CPU, in order and sse together, with all watchers there and no change."""
    idle_cpu_percent_envoy: float
    kills: int
    reconnects: int


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


def compare(seen: dict[str, list[int]], logs: dict[str, list[int]]) -> tuple[int, int]:
    """How many events were missed (or came out of turn), and how many came twice."""
    missed = doubled = 0
    for order_id, log in logs.items():
        got = seen.get(order_id, [])
        doubled += sum(count - 1 for count in Counter(got).values())
        in_turn = list(dict.fromkeys(got))
        missed += len(set(log) - set(got)) + (in_turn != sorted(in_turn))
    return missed, doubled


def quantile(ordered: Sequence[float], share: float) -> float:
    """In milliseconds, of delays in seconds."""
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


async def steady(watchers: int, per_second: float, seconds: float) -> Result:
    """One order process, one sidecar, one Envoy; each watcher follows an order of its own."""
    with bench_shop() as shop:
        await shop.ready()
        conninfo = shop.postgres.service("order")
        order_ids = place(conninfo, watchers)
        driver = Driver(shop.order_target, order_ids)
        async with watch_process() as process:
            await _warm_up(shop, process, conninfo)
            memory = {kind: shop.resident(kind) for kind in ("order", "sse", "envoy")}
            await process.ask("watch", shop.edge_ports, order_ids, CONNECTS)
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
            grown = {kind: (shop.resident(kind) - memory[kind]) / 1024 / watchers for kind in memory}
            shop.check()
        return _result("steady", watchers, rate, report, logs, grown=grown, idle=idle, cpu=cpu, kills=0)


async def _warm_up(shop: BenchShop, process: WatchProcess, conninfo: str) -> None:
    """What a process needs once is not counted by watcher."""
    few = place(conninfo, 100)
    async with watch_process() as first:
        await first.ask("watch", shop.edge_ports, few, CONNECTS)
        await Driver(shop.order_target, few).run(200, 300)
        await first.ask("report", 400, 100, SETTLE)


async def _cpu_percent(shop: BenchShop, seconds: float) -> dict[str, float]:
    before = {kind: shop.cpu(kind) for kind in ("order", "sse", "envoy")}
    await asyncio.sleep(seconds)
    return {kind: 100 * (shop.cpu(kind) - used) / seconds for kind, used in before.items()}


async def faults(watchers: int, per_second: float, seconds: float) -> Result:
    """Three order replicas and two edges. Order replicas and sidecars are killed and started again at random; watchers
    come back through either edge. At the end every order is RECEIVED and every stream completed."""
    with bench_shop(orders=3, edges=2) as shop:
        await shop.ready()
        conninfo = shop.postgres.service("order")
        order_ids = place(conninfo, watchers)
        driver = Driver(shop.order_target, order_ids)
        async with watch_process() as process:
            await process.ask("watch", shop.edge_ports, order_ids, CONNECTS)
            await process.ask("measure")
            chaos = asyncio.create_task(_kill_at_random(shop, seconds))
            rate = await driver.run(per_second, 3 * watchers)
            kills = await chaos
            logs = versions(conninfo, order_ids)
            events = sum(len(log) for log in logs.values())
            (report,) = await process.ask("report", events, watchers, SETTLE)
            shop.check()
        return _result("replicas killed", watchers, rate, report, logs, grown={}, idle={}, cpu=0, kills=kills)


async def _kill_at_random(shop: BenchShop, seconds: float) -> int:
    """Answers how many processes were killed."""
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


def _result(
    case: str,
    watchers: int,
    rate: float,
    report: dict[str, Any],
    logs: dict[str, list[int]],
    *,
    grown: dict[str, float],
    idle: dict[str, float],
    cpu: float,
    kills: int,
) -> Result:
    delays = sorted(report["delays"])
    missed, doubled = compare(report["versions"], logs)
    order, sse, envoy = (grown.get(kind, 0.0) for kind in ("order", "sse", "envoy"))
    print(f"    {report['counts']}, completed {report['completed']}", file=sys.stderr)
    return Result(
        case=case,
        watchers=watchers,
        changes_per_s=round(rate, 1),
        p50_ms=quantile(delays, 0.5),
        p99_ms=quantile(delays, 0.99),
        p999_ms=quantile(delays, 0.999),
        missed=missed,
        doubled=doubled,
        kib_per_watcher=round(order + sse, 1),
        kib_per_watcher_order=round(order, 1),
        kib_per_watcher_sse=round(sse, 1),
        kib_per_watcher_envoy=round(envoy, 1),
        cpu_s_per_1000_events=round(1000 * cpu / len(delays), 2) if delays else 0.0,
        idle_cpu_percent=round(idle.get("order", 0.0) + idle.get("sse", 0.0), 1),
        idle_cpu_percent_envoy=round(idle.get("envoy", 0.0), 1),
        kills=kills,
        reconnects=report["counts"].get("reconnects", 0),
    )


CASES = {
    "1000": lambda: steady(1_000, 100, 20),
    "10000": lambda: steady(10_000, 200, 60),
    "faults": lambda: faults(2_000, 100, 60),
}


def table(results: Sequence[Result]) -> str:
    head = (
        "| case | watchers | changes/s | p50 ms | p99 ms | p99.9 ms | missed | doubled | KiB per watcher: order | sse"
        " | Envoy | CPU s per 1,000 events | idle CPU: order + sse | Envoy |"
    )
    lines = [head, "|" + " --- |" * head.count(" | ") + " --- |"]
    for r in results:
        memory = f"{r.kib_per_watcher_order} | {r.kib_per_watcher_sse} | {r.kib_per_watcher_envoy}"
        idle = f"{r.idle_cpu_percent} % | {r.idle_cpu_percent_envoy} %"
        lines.append(
            f"| {r.case} | {r.watchers:,} | {r.changes_per_s} | {r.p50_ms} | {r.p99_ms} | {r.p999_ms} | {r.missed}"
            f" | {r.doubled} | {memory} | {r.cpu_s_per_1000_events} | {idle} |"
        )
    return "\n".join(lines)


async def run(names: Sequence[str]) -> int:
    """Runs the cases of these names, or all; answers the exit status."""
    results = []
    for name in names or CASES:
        print(f"{name} …", file=sys.stderr)
        results.append(await CASES[name]())
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    print(table(results))
    return 1 if any(each.missed or each.doubled for each in results) else 0
