"""The parts of the simulation do what queueing theory says, and what the shop's own code does."""

import math
import random
from statistics import mean

import pytest
import simpy

from bench.queueing import Batcher, Host, Log, Pool, Process, Refused, Steps


def erlang_c(servers: int, load: float) -> float:
    """The share of calls that wait in an M/M/c queue. `load` is in servers."""
    waiting = load**servers / math.factorial(servers) * servers / (servers - load)
    return waiting / (sum(load**n / math.factorial(n) for n in range(servers)) + waiting)


@pytest.mark.parametrize(("servers", "use"), [(1, 0.5), (2, 0.7), (4, 0.8)])
def test_processor_waits_match_erlang_c(servers: int, use: float) -> None:
    service, calls = 0.0005, 40_000
    rate = use * servers / service
    env, numbers = simpy.Environment(), random.Random(7)
    host = Host(env, servers)
    waits: list[float] = []

    def call() -> Steps:
        start, work = env.now, numbers.expovariate(1 / service)
        yield from host.work("call", work)
        waits.append(env.now - start - work)

    def arrivals() -> Steps:
        for _ in range(calls):
            yield env.timeout(numbers.expovariate(rate))
            env.process(call())

    env.process(arrivals())
    env.run()
    # Erlang's formula is for calls that run to their end. A processor that is shared by turns has the same mean.
    expected = erlang_c(servers, use * servers) * service / (servers * (1 - use))
    assert mean(waits) == pytest.approx(expected, rel=0.15)
    assert host.busy["call"] == pytest.approx(use * servers * env.now, rel=0.03)


def test_event_loop_does_one_thing_at_a_time() -> None:
    env = simpy.Environment()
    loop = Process(env, Host(env, 8), "order")
    ends: list[float] = []

    def call() -> Steps:
        yield from loop.work(0.003)
        ends.append(round(env.now, 6))

    for _ in range(3):
        env.process(call())
    env.run()
    assert ends == [0.003, 0.006, 0.009]


def test_commits_during_a_flush_share_the_next_one() -> None:
    env = simpy.Environment()
    log = Log(env, lambda: 0.01, replication=0.005)
    ends: list[float] = []

    def commit(start: float) -> Steps:
        yield env.timeout(start)
        yield from log.commit()
        ends.append(round(env.now, 6))

    for start in (0.0, 0.002, 0.003, 0.009):
        env.process(commit(start))
    env.run()
    assert ends == [0.015, 0.025, 0.025, 0.025]
    assert log.flushes == 2


def test_full_pool_refuses_calls() -> None:
    env = simpy.Environment()
    pool = Pool(env, size=1, max_waiting=1)
    outcomes: list[str] = []

    def call() -> Steps:
        try:
            yield from pool.run(work())
            outcomes.append("done")
        except Refused:
            outcomes.append("refused")

    def work() -> Steps:
        yield env.timeout(1)

    for _ in range(3):
        env.process(call())
    env.run()
    assert sorted(outcomes) == ["done", "done", "refused"]


def batches_of(calls: list[float], duration: float, **limits: int) -> tuple[list[tuple[float, int]], int]:
    """Returns when batches started and how large they were, and how many calls were refused."""
    env = simpy.Environment()
    started: list[tuple[float, int]] = []
    refused = 0

    def run(batch: list[int]) -> Steps:
        started.append((round(env.now, 6), len(batch)))
        yield env.timeout(duration)

    def quiet() -> Steps:
        yield env.timeout(0)

    batcher = Batcher(
        env,
        run,
        quiet,
        max_size=limits.get("max_size", 64),
        max_running=4,
        max_waiting=limits.get("max_waiting", 200),
        stall=0.05,
        quiet_turns=3,
    )

    def call(at: float) -> Steps:
        nonlocal refused
        yield env.timeout(at)
        try:
            yield from batcher.call(1)
        except Refused:
            refused += 1

    for at in calls:
        env.process(call(at))
    env.run()
    return started, refused


def test_calls_during_a_batch_run_together_after_it() -> None:
    started, _ = batches_of([0.0, 0.001, 0.002, 0.003], duration=0.01)
    assert started == [(0.0, 1), (0.01, 3)]


def test_a_batch_is_no_larger_than_its_maximum() -> None:
    started, _ = batches_of([0.0] * 10, duration=0.01, max_size=4)
    assert [size for _, size in started] == [4, 4, 2]


def test_another_batch_starts_beside_one_that_stalls() -> None:
    started, _ = batches_of([0.0, 0.01], duration=0.2)
    assert started == [(0.0, 1), (0.06, 1)]


def test_calls_beyond_the_queue_are_refused() -> None:
    started, refused = batches_of([0.0] * 7, duration=0.01, max_waiting=5)
    assert (sum(size for _, size in started), refused) == (5, 2)
