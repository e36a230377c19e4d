"""Batches without a timer: requests that wait at the same time are run together.

A request that comes while no batch is running starts one after a few turns of the event loop, in which others may join.
Requests that come while a batch is running wait, and run together when it has ended: so one call, or one statement and
its commit, serves all of them. No request waits only so that others may join it.
"""

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from opentelemetry import trace
from opentelemetry.trace import Span

from runtime.errors import ApiError, queue_full
from runtime.limited_log import LimitedLines
from runtime.telemetry.spans import inner_span

log_failure = LimitedLines(logging.getLogger(__name__), logging.WARNING, rate=1)

Request = TypeVar("Request")
Result = TypeVar("Result")
Question = TypeVar("Question", bound=Hashable)

MAX_BATCH_SIZE = 64
"""How many requests a batch has at most."""

MAX_RUNNING = 4
"""How many batches of one kind may run at the same time."""

QUIET_TURNS = 3
"""How many turns of the event loop without a new request start a batch. On an idle loop a turn takes microseconds. On a
busy one, other calls make progress in each turn, and some of them join the batch."""

STALLED_BATCH_DELAY = 0.05
"""Seconds after which another batch starts beside one that has not ended. A batch that waits for a lock delays other
requests no longer than that."""

MAX_RUNNING_LOOKUPS = 2
"""How many lookups for one question may run at the same time."""

MAX_WAITING = 500
"""How many requests may wait or run. Further ones are refused."""


@dataclass(slots=True)
class _Batch:
    task: "asyncio.Task[None] | None"
    waiting_callers: int
    """How many callers still wait for it."""

    def leave(self) -> None:
        """Counts a caller that was cancelled. The last one cancels the batch."""
        self.waiting_callers -= 1
        if not self.waiting_callers and self.task:
            self.task.cancel()


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Request, Result]):
    request: Request
    result: "asyncio.Future[Result]"
    context: contextvars.Context
    span: Span | None
    batch: _Batch | None = None
    """The batch that it runs in; None while it waits."""


async def isolate_failures(
    run: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]], requests: Sequence[Request]
) -> Sequence[Result | Exception]:
    """Runs requests together. If that fails because of one of them, runs each alone, so that only that one fails.

    An ApiError concerns all requests; any other exception may be due to one of them. When the requests run alone and
    one fails with a transient ApiError, the remaining ones are not tried and get the same error.

    Args:
        run: Returns a result for each request, in their order. If it raises, it must not have changed anything.
        requests: The requests.

    Returns:
        The result of each request, or the exception that it failed with.

    Raises:
        ApiError: `run` raised it for all requests.
    """
    try:
        return await run(requests)
    except ApiError:
        raise
    except Exception as error:
        if len(requests) == 1:
            return [error]
        log_failure("a batch failed: running its requests one by one", {"requests": len(requests)}, error)
    results: list[Result | Exception] = []
    for each in requests:
        try:
            results += await run([each])
        except Exception as error:
            if isinstance(error, ApiError) and error.is_transient:
                return [*results, *[error] * (len(requests) - len(results))]
            results.append(error)
    return results


class Batcher(Generic[Request, Result]):
    """Runs the requests of concurrent callers in batches. Each request succeeds or fails by itself."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]],
        *,
        key: Callable[[Request], Hashable] | None = None,
        run_alone: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]] | None = None,
        max_size: int = MAX_BATCH_SIZE,
        max_running: int = MAX_RUNNING,
        max_alone: int = MAX_WAITING,
        max_waiting: int = MAX_WAITING,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """Creates the batcher.

        Args:
            name: The name of its spans.
            run: Returns a result for each request, in their order. An exception among the results is raised to its
                caller; one that `run` raises, to all callers.
            key: Returns the key of a request. A request whose key is that of another one that waits or runs is run
                alone, at once. If it had to wait for the next batch instead, the last of several such requests would
                wait for all the others.
            run_alone: Runs such a request; by default `run`.
            max_size: How many requests a batch has at most.
            max_running: How many batches may run at the same time.
            max_alone: How many requests may run alone at the same time.
            max_waiting: How many requests may wait or run.
            on_idle: Called when no request waits or runs any more.
        """
        self.name = name
        self._run = run
        self._key = key
        self._keys: set[Hashable] = set()
        """The keys of the requests that wait or run in a batch."""
        self._run_alone = run_alone or run
        self._slots_alone = asyncio.Semaphore(max_alone)
        self._max_size = max_size
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._on_idle = on_idle
        self.waiting = 0
        """How many requests wait or run."""
        self.refused = 0
        """How many requests were refused because too many waited or ran."""
        self._queue: deque[_Waiting[Request, Result]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._stall_timer: asyncio.TimerHandle | None = None

    async def __call__(self, request: Request) -> Result:
        """Returns the result of a request.

        If its caller is cancelled while the request waits, the request is dropped. If it runs already, it goes on as
        long as another caller waits for the same batch; when all callers are cancelled, so is the batch.

        Raises:
            ApiError: RESOURCE_EXHAUSTED if too many requests wait or run.
            Exception: What the request failed with.
        """
        self.check_queue()
        with inner_span(self.name) as span:
            return await self._wait(request, span)

    def check_queue(self) -> None:
        """Checks that one more request may wait.

        Raises:
            ApiError: RESOURCE_EXHAUSTED if too many wait or run.
        """
        if self.waiting >= self._max_waiting:
            self.refused += 1
            raise queue_full()

    async def _wait(self, request: Request, span: Span | None) -> Result:
        key = self._key(request) if self._key else None
        self.waiting += 1
        try:
            if key in self._keys:
                return await self._alone(request)
            if key is not None:
                self._keys.add(key)
            waiting = self._enqueue(request, span)
            try:
                return await waiting.result
            except asyncio.CancelledError:
                if waiting.batch:
                    waiting.batch.leave()
                else:
                    with suppress(ValueError):  # the next batch has skipped it already
                        self._queue.remove(waiting)
                raise
            finally:
                self._keys.discard(key)
        finally:
            self.waiting -= 1

    async def _alone(self, request: Request) -> Result:
        async with self._slots_alone:
            (result,) = await self._run_alone([request])
        if isinstance(result, Exception):
            raise result
        return result

    def _enqueue(self, request: Request, span: Span | None) -> _Waiting[Request, Result]:
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Request, Result] = _Waiting(request, loop.create_future(), contextvars.copy_context(), span)
        self._queue.append(waiting)
        if not self._running:
            self._start_batch()
        elif self._stall_timer is None and len(self._running) < self._max_running:
            self._stall_timer = loop.call_later(STALLED_BATCH_DELAY, self._on_stall)
        return waiting

    def _on_stall(self) -> None:
        self._stall_timer = None
        self._start_batch()

    def _start_batch(self) -> None:
        """Starts the next batch, if a request waits and another batch may run."""
        if self._queue and len(self._running) < self._max_running:
            # In the context of one of the requests, whose ids the log lines of the batch then have.
            task = asyncio.get_running_loop().create_task(self._run_batch(), context=self._queue[0].context)
            self._running.add(task)
            task.add_done_callback(self._on_batch_end)

    def _on_batch_end(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            raise error  # to the exception handler of the event loop: a fault of this class
        self._start_batch()
        if not self._running:
            self._on_idle()

    def _take_batch(self) -> list[_Waiting[Request, Result]]:
        batch: list[_Waiting[Request, Result]] = []
        while self._queue and len(batch) < self._max_size:
            waiting = self._queue.popleft()
            if waiting.result.done():
                continue  # its caller was cancelled
            batch.append(waiting)
        return batch

    async def _wait_for_quiet(self) -> None:
        """Waits until the event loop brings no further request, or the batch is full."""
        quiet, size = 0, len(self._queue)
        while quiet < QUIET_TURNS and size < self._max_size:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) <= size else 0
            size = len(self._queue)

    async def _run_batch(self) -> None:
        await self._wait_for_quiet()
        batch = self._take_batch()
        if not batch:
            return
        traced = _traced(batch)
        running = _Batch(asyncio.current_task(), len(batch))
        for each in batch:
            each.batch = running
        try:
            # Within the span of a request that has one, so that the spans of the batch have a parent.
            with _within(traced):
                results = await self._run([each.request for each in batch])
        except Exception as error:
            results = [error] * len(batch)
        except BaseException:
            for each in batch:
                each.result.cancel()
            raise
        for each, result in zip(batch, results, strict=True):
            if each.result.done():
                continue
            if isinstance(result, Exception):
                each.result.set_exception(result)
            else:
                each.result.set_result(result)


def _within(span: Span | None) -> AbstractContextManager[object]:
    if span is None:
        return nullcontext()
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def _traced(batch: Sequence[_Waiting[Request, Result]]) -> Span | None:
    """Returns the span whose trace is to contain the batch: the first that is sampled. Links the others to it."""
    spans = [each.span for each in batch if each.span]
    for each in spans[1:]:
        each.add_link(spans[0].get_span_context())
    return spans[0] if spans else None


class SharedLookup(Generic[Question, Result]):
    """Looks something up once for all callers who ask the same question at the same time.

    No caller gets a result that was looked up before it asked: who asks during a lookup shares the next one.
    """

    def __init__(self, name: str, look_up: Callable[[Question], Awaitable[Result]]) -> None:
        """Creates the lookup.

        Args:
            name: The name of its spans.
            look_up: Returns the result for a question. It is cancelled when all callers that share it are cancelled.
        """
        self._name = name
        self._look_up = look_up
        self._batchers: dict[Question, Batcher[None, Result]] = {}

    def __len__(self) -> int:
        """Returns the number of questions that somebody waits for."""
        return len(self._batchers)

    async def __call__(self, question: Question) -> Result:
        """Returns the result for a question, or raises what `look_up` raises."""
        batcher = self._batchers.get(question)
        if batcher is None:
            batcher = self._batchers[question] = self._batcher(question)
        return await batcher(None)

    def _batcher(self, question: Question) -> Batcher[None, Result]:
        async def run(requests: Sequence[None]) -> Sequence[Result]:
            return [await self._look_up(question)] * len(requests)

        def on_idle() -> None:
            del self._batchers[question]

        return Batcher(self._name, run, max_size=MAX_WAITING, max_running=MAX_RUNNING_LOOKUPS, on_idle=on_idle)
