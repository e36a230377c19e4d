"""The parts of a queueing simulation: processors, event loops, pools, batches, a write-ahead log and row locks.

Times are in seconds. Everything random comes from the generator that the caller gives, so a seed repeats a run.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

import simpy

Steps = Generator[simpy.Event, Any, None]
"""What a simulated process does: it yields the events that it waits for."""

Call = TypeVar("Call")

QUANTUM = 0.001
"""Seconds after which a processor turns to the next one that waits. Linux has some milliseconds."""


class Refused(Exception):
    """A bounded queue is full."""


class Host:
    """A machine with some processors, on which work takes turns."""

    def __init__(self, env: simpy.Environment, cores: int) -> None:
        self._env = env
        self._cores = simpy.Resource(env, cores)
        self.cores = cores
        self.busy: dict[str, float] = defaultdict(float)
        """Seconds of work so far, by the name of the process that did it."""

    def work(self, name: str, seconds: float) -> Steps:
        """Occupies a processor for so long, in turns of at most QUANTUM."""
        while seconds > 0:
            turn = min(QUANTUM, seconds)
            with self._cores.request() as granted:
                yield granted
                yield self._env.timeout(turn)
            self.busy[name] += turn
            seconds -= turn


class Process:
    """A process that does one thing at a time, such as an event loop; or some, such as the workers of Envoy."""

    def __init__(self, env: simpy.Environment, host: Host, name: str, threads: int = 1) -> None:
        self._host = host
        self._name = name
        self._threads = simpy.PriorityResource(env, threads)

    def turn(self) -> Steps:
        """Waits until what the process does now has ended: a turn of an event loop, which others continue after it."""
        with self._threads.request(priority=-1) as granted:
            yield granted

    def work(self, seconds: float) -> Steps:
        """Waits for its turn, and works for so long."""
        with self._threads.request() as granted:
            yield granted
            yield from self._host.work(self._name, seconds)


class Pool:
    """Connections, for which a bounded number of callers wait."""

    def __init__(self, env: simpy.Environment, size: int, max_waiting: int) -> None:
        self._connections = simpy.Resource(env, size)
        self._max_waiting = max_waiting

    def run(self, work: Steps) -> Steps:
        """Runs work with a connection. Raises Refused if too many callers wait for one."""
        if len(self._connections.queue) >= self._max_waiting:
            raise Refused
        with self._connections.request() as granted:
            yield granted
            yield from work


class Log:
    """A write-ahead log. Commits that come during a flush share the next one, and then wait for the standby."""

    def __init__(self, env: simpy.Environment, flush_time: Callable[[], float], replication: float = 0.0) -> None:
        self._env = env
        self._flush_time = flush_time
        self._replication = replication
        self._waiting: list[simpy.Event] = []
        self._flushing = False
        self.flushes = 0

    def commit(self) -> Steps:
        """Waits until what was written before is on the disk, and on the standby if there is one."""
        flushed = self._env.event()
        self._waiting.append(flushed)
        if not self._flushing:
            self._flushing = True
            self._env.process(self._flush())
        yield flushed
        if self._replication:
            yield self._env.timeout(self._replication)

    def _flush(self) -> Steps:
        while self._waiting:
            flushed, self._waiting = self._waiting, []
            yield self._env.timeout(self._flush_time())
            self.flushes += 1
            for each in flushed:
                each.succeed()
        self._flushing = False


class Batcher(Generic[Call]):
    """Runs calls in batches as `runtime.batch.Batcher` does: without a timer, but for a batch that stalls."""

    def __init__(
        self,
        env: simpy.Environment,
        run: Callable[[list[Call]], Steps],
        quiet: Callable[[], Steps],
        *,
        max_size: int,
        max_running: int,
        max_waiting: int,
        stall: float,
        quiet_turns: int,
    ) -> None:
        """Initializes the batcher.

        Args:
            env: The simulation.
            run: What a batch does.
            quiet: A turn of the event loop. A batch starts after `quiet_turns` of them without a new call.
            max_size: Calls that a batch has at most.
            max_running: Batches that run at the same time at most.
            max_waiting: Calls that may wait or run.
            stall: Seconds after which another batch starts beside one that has not ended.
            quiet_turns: See `quiet`.
        """
        self._env = env
        self._run = run
        self._quiet = quiet
        self._max_size = max_size
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._stall = stall
        self._quiet_turns = quiet_turns
        self._queue: deque[tuple[Call, simpy.Event]] = deque()
        self._running = 0
        self._stall_timer = False
        self.waiting = 0
        self.batches = 0
        self.calls = 0

    def call(self, call: Call) -> Steps:
        """Waits until the call's batch has ended. Raises Refused if too many wait."""
        if self.waiting >= self._max_waiting:
            raise Refused
        self.waiting += 1
        ended = self._env.event()
        self._queue.append((call, ended))
        if not self._running:
            self._start()
        elif not self._stall_timer and self._running < self._max_running:
            self._stall_timer = True
            self._env.process(self._after_stall())
        try:
            yield ended
        finally:
            self.waiting -= 1

    def _start(self) -> None:
        if self._queue and self._running < self._max_running:
            self._running += 1
            self._env.process(self._batch())

    def _after_stall(self) -> Steps:
        yield self._env.timeout(self._stall)
        self._stall_timer = False
        self._start()

    def _batch(self) -> Steps:
        turns, size = 0, len(self._queue)
        while turns < self._quiet_turns and size < self._max_size:
            yield from self._quiet()
            turns = turns + 1 if len(self._queue) <= size else 0
            size = len(self._queue)
        batch = [self._queue.popleft() for _ in range(min(self._max_size, len(self._queue)))]
        failure: Exception | None = None
        if batch:
            self.batches += 1
            self.calls += len(batch)
            try:
                yield from self._run([call for call, _ in batch])
            except Refused as error:
                failure = error
        self._running -= 1
        for _, ended in batch:
            if failure:
                ended.fail(failure)
            else:
                ended.succeed()
        self._start()
