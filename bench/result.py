"""The result of a benchmark of the streams: a row of the table, and an object in the file."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.table import markdown


@dataclass(frozen=True, kw_only=True)
class Result:
    """One case. Memory is the growth of resident memory by watcher, of all processes of a kind together."""

    case: str
    watchers: int
    changes_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    missed: int
    doubled: int
    given_up: int
    """Watchers that got a response after which an EventSource does not reconnect."""
    unfinished: int
    """Streams that should have ended, but did not."""
    kib_per_watcher: float
    """Of order and sse together."""
    kib_per_watcher_order: float
    kib_per_watcher_sse: float
    kib_per_watcher_envoy: float
    cpu_s_per_1000_events: float
    """Of order and sse together. It includes the cost of the transitions, and of restarts after kills."""
    idle_cpu_percent: float | None
    """Of one CPU, for order and sse together, while all watchers wait and nothing changes."""
    idle_cpu_percent_envoy: float | None
    kills: int
    reconnects: int

    @property
    def ok(self) -> bool:
        """Whether every watcher saw every event once and in order, and could always reconnect."""
        return not (self.missed or self.doubled or self.given_up or self.unfinished)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Returns a quantile in milliseconds of sorted delays in seconds."""
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


HEAD = (
    "case",
    "watchers",
    "changes/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "missed",
    "doubled",
    "KiB per watcher: order",
    "sse",
    "Envoy",
    "CPU s per 1,000 events",
    "idle CPU: order + sse",
    "Envoy",
)


def table(results: Sequence[Result]) -> str:
    """Returns the results as a table in Markdown."""
    return markdown(HEAD, [_row(each) for each in results])


def _row(r: Result) -> tuple[str, ...]:
    case = f"{r.case} ({r.kills} kills)" if r.kills else r.case
    delays = (r.p50_ms, r.p99_ms, r.p999_ms)
    memory = (r.kib_per_watcher_order, r.kib_per_watcher_sse, r.kib_per_watcher_envoy)
    idle = ("–" if each is None else f"{each} %" for each in (r.idle_cpu_percent, r.idle_cpu_percent_envoy))
    return (
        *(case, f"{r.watchers:,}", str(r.changes_per_s)),
        *(f"{delay:,}" for delay in delays),
        *(str(r.missed), str(r.doubled)),
        *(str(each) for each in memory),
        str(r.cpu_s_per_1000_events),
        *idle,
    )
