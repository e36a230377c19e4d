"""The benchmark of the streams notices lost and repeated events."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from bench.result import Result, quantile, table
from bench.streams import compare
from bench.watch import Watchers

LOGS = {"a": [1, 2, 3, 4], "b": [1, 2]}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"a": [1, 2, 3, 4], "b": [1, 2]}, (0, 0)),
        ({"a": [1, 2, 3, 4]}, (2, 0)),
        ({"a": [1, 2, 4], "b": [1, 2]}, (1, 0)),
        ({"a": [1, 2, 2, 3, 4], "b": [1, 2]}, (0, 1)),
        ({"a": [1, 2, 3, 4], "b": [1, 2, 1, 2]}, (0, 2)),
        ({"a": [1, 3, 2, 4], "b": [1, 2]}, (1, 0)),
        ({"a": [1, 2, 3, 4], "b": [1, 2, 3]}, (0, 1)),
        ({"a": [2, 3, 3, 4], "b": []}, (3, 1)),
    ],
)
def test_what_watchers_saw_is_compared_version_by_version(
    seen: dict[str, list[int]], expected: tuple[int, int]
) -> None:
    """Missed, come twice, out of turn, and never happened."""
    assert compare(seen, LOGS) == expected


def event(version: int, ago: float = 0.0) -> bytes:
    moment = datetime.fromtimestamp(time.time() - ago, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = {"order_id": str(uuid4()), "status": "PLACED", "message": "order PLACED", "updated_at": moment}
    return f"id: {version}\ndata: {json.dumps(data)}\n\n".encode()


def test_a_watcher_notes_each_event_as_often_as_it_comes() -> None:
    """Wherever the network cuts."""
    watchers = Watchers([])
    watcher = watchers.add("a")
    watcher.responded(200)
    for byte in event(1) + event(2) + event(2) + b": heartbeat\n\n" + event(4):
        watcher.received(bytes([byte]))
    assert watcher.versions == [1, 2, 2, 4]
    assert (watchers.seen, watchers.completed, watchers.counts) == (4, 0, {"heartbeats": 1})


def test_a_delay_is_from_the_change_until_the_event_is_there() -> None:
    """What was before the measuring is history, not news."""
    watchers = Watchers([])
    watchers.measuring = time.time() - 1
    watcher = watchers.add("a")
    watcher.responded(200)
    watcher.received(event(1, ago=5) + event(2, ago=0.2))
    (delay,) = watchers.delays
    assert 0.2 <= delay < 0.3


@pytest.mark.parametrize(("status", "completed"), [(204, 1), (503, 0), (404, 0)])
def test_a_watcher_gives_up_as_an_event_source_does(status: int, completed: int) -> None:
    watchers = Watchers([])
    watcher = watchers.add("a")
    watcher.responded(status)
    watcher.received(b"{}")
    watcher.ended()  # and no task is made that comes back: there is no loop here
    assert (watchers.counts, watchers.completed) == ({f"status {status}": 1}, completed)


def test_a_quantile_is_in_milliseconds() -> None:
    delays = [n / 1000 for n in range(1000)]
    assert (quantile(delays, 0.5), quantile(delays, 0.99), quantile(delays, 0.999)) == (500.0, 990.0, 999.0)
    assert quantile([], 0.5) == 0


RESULT = Result(
    case="steady",
    watchers=10_000,
    changes_per_s=200.0,
    p50_ms=12.5,
    p99_ms=30.0,
    p999_ms=1_040.0,
    missed=0,
    doubled=0,
    given_up=0,
    unfinished=0,
    kib_per_watcher=18.0,
    kib_per_watcher_order=1.0,
    kib_per_watcher_sse=17.0,
    kib_per_watcher_envoy=39.5,
    cpu_s_per_1000_events=1.25,
    idle_cpu_percent=None,
    idle_cpu_percent_envoy=1.3,
    kills=0,
    reconnects=0,
)


@pytest.mark.parametrize("field", ["missed", "doubled", "given_up", "unfinished"])
def test_one_event_or_watcher_lost_fails_the_run(field: str) -> None:
    assert RESULT.ok
    changes: dict[str, Any] = {field: 1}
    assert not replace(RESULT, **changes).ok


def test_the_table_has_a_cell_in_every_column() -> None:
    head, line, row = table([RESULT]).splitlines()
    assert len(head) == len(line) == len(row)
    assert head.count("|") == line.count("|") == row.count("|")
    assert "| 10,000 " in row
    assert "| 1,040.0 " in row
    assert "| – " in row
