"""Natural batches: what waits goes together.

A request that finds none of its kind under way leaves as soon as the event loop has nothing else to do, which may bring
others along. Those that come while one is under way wait, and leave together when it is back, so that one call, or one
statement and its commit, serves all of them. No timer has anybody wait for company.
"""

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from opentelemetry import trace
from opentelemetry.trace import Span

from runtime.errors import ApiError, resource_exhausted

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Result = TypeVar("Result")
Question = TypeVar("Question", bound=Hashable)

LARGEST = 64
"""Requests of one batch, at most."""

AT_ONCE = 4
"""Batches that may be under way, at most."""

QUIET_TURNS = 3
"""Turns of the event loop in which nobody else has come, after which a batch leaves. A turn takes microseconds where
nothing else is to do; where other calls are at work, it takes them further, and some of them want to come along."""

RELIEF = 0.05
"""Seconds until another batch leaves beside one that does not come back: a batch that waits for a lock keeps others
waiting for no longer."""

SHARED_AT_ONCE = 2
"""Looks for the answer to one question that may be under way, at most."""

MOST_WAITING = 500
"""Requests that may wait or be under way; those beyond are refused."""

tracer = trace.get_tracer("shop.batch")


@dataclass(slots=True)
class _UnderWay:
    task: "asyncio.Task[None] | None"
    callers: int
    """Those who still wait for it."""

    def leave(self) -> None:
        self.callers -= 1
        if not self.callers and self.task:
            self.task.cancel()


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Request, Result]):
    request: Request
    result: "asyncio.Future[Result]"
    context: contextvars.Context
    span: Span | None
    batch: _UnderWay | None = None
    """The batch that it has left with."""


async def apart(
    run: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]], requests: Sequence[Request]
) -> Sequence[Result | Exception]:
    """Runs requests together; where they fail for a reason that may be one request's own, which is anything but an
    ApiError, one by one, so that only that one fails. What failed together has to have changed nothing.

    Once one of them finds that nothing can be had at present, the others are told the same, and do not try.
    """
    try:
        return await run(requests)
    except ApiError:
        raise
    except Exception as error:
        if len(requests) == 1:
            return [error]
        log.warning("a batch failed: its %d requests are tried one by one", len(requests), exc_info=error)
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
    """Gathers the requests of concurrent callers, each of which stands or falls by itself."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]],
        *,
        key: Callable[[Request], Hashable] | None = None,
        run_alone: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]] | None = None,
        largest: int = LARGEST,
        at_once: int = AT_ONCE,
        most_waiting: int = MOST_WAITING,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        """`run` returns a result for each request, in their sequence. An exception among them is raised to its caller,
        one that `run` raises to all. `idle` is called when nobody waits any more. `name` is that of a span.

        A request that has the same `key` as one that waits or is under way runs alone, at once, by `run_alone` (by
        default `run`). If such requests went into one batch after the other, the last would wait for all the others.
        """
        self._name = name
        self._run = run
        self._key = key
        self._keys: set[Hashable] = set()
        """The keys of requests that wait or are under way in a batch."""
        self._run_alone = run_alone or run
        self._largest = largest
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._idle = idle
        self._waiting = 0
        self._queue: deque[_Waiting[Request, Result]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._relief: asyncio.TimerHandle | None = None

    async def __call__(self, request: Request) -> Result:
        """Returns what came of a request. If its caller leaves while it waits, it is dropped; once it is under way, it
        is done all the same, for as long as a caller of the same batch is there: `run` is cancelled when all have left.

        Raises RESOURCE_EXHAUSTED where too many wait, those under way among them: they wait as well.
        """
        self.check_queue()
        if not trace.get_current_span().is_recording():
            return await self._wait(request, None)
        with tracer.start_as_current_span(self._name) as span:
            return await self._wait(request, span)

    def check_queue(self) -> None:
        """Raises RESOURCE_EXHAUSTED where nobody else may wait."""
        if self._waiting >= self._most_waiting:
            raise resource_exhausted("too many calls are waiting")

    async def _wait(self, request: Request, span: Span | None) -> Result:
        key = self._key(request) if self._key else None
        self._waiting += 1
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
                    with suppress(ValueError):  # the next batch has passed over it already
                        self._queue.remove(waiting)
                raise
            finally:
                self._keys.discard(key)
        finally:
            self._waiting -= 1

    async def _alone(self, request: Request) -> Result:
        (result,) = await self._run_alone([request])
        if isinstance(result, Exception):
            raise result
        return result

    def _enqueue(self, request: Request, span: Span | None) -> _Waiting[Request, Result]:
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Request, Result] = _Waiting(request, loop.create_future(), contextvars.copy_context(), span)
        self._queue.append(waiting)
        if not self._under_way:
            self._leave()
        elif self._relief is None and len(self._under_way) < self._at_once:
            self._relief = loop.call_later(RELIEF, self._relieve)
        return waiting

    def _relieve(self) -> None:
        self._relief = None
        self._leave()

    def _leave(self) -> None:
        """Sends the next batch, if there is one."""
        if self._queue and len(self._under_way) < self._at_once:
            # In the context of one of them, so that what is traced on the way has a parent.
            task = asyncio.get_running_loop().create_task(self._go(), context=self._queue[0].context)
            self._under_way.add(task)
            task.add_done_callback(self._back)

    def _back(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()):
            raise error  # to the loop's handler: a fault of this class
        self._leave()
        if not self._under_way:
            self._idle()

    def _next(self) -> list[_Waiting[Request, Result]]:
        batch: list[_Waiting[Request, Result]] = []
        while self._queue and len(batch) < self._largest:
            waiting = self._queue.popleft()
            if waiting.result.done():
                continue  # its caller has left
            batch.append(waiting)
        return batch

    async def _board(self) -> None:
        """Waits for as long as more come in each few turns of the loop."""
        quiet, size = 0, len(self._queue)
        while quiet < QUIET_TURNS and size < self._largest:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) <= size else 0
            size = len(self._queue)

    async def _go(self) -> None:
        await self._board()
        batch = self._next()
        if not batch:
            return
        self._link(batch)
        under_way = _UnderWay(asyncio.current_task(), len(batch))
        for each in batch:
            each.batch = under_way
        try:
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

    @staticmethod
    def _link(batch: Sequence[_Waiting[Request, Result]]) -> None:
        """Tells the traces of the others in whose trace the batch is."""
        first = batch[0].span
        if first is not None:
            for each in batch[1:]:
                if each.span is not None:
                    each.span.add_link(first.get_span_context())


class Shared(Generic[Question, Result]):
    """Looks something up once for all who ask the same question at the same time.

    Nobody gets an answer that was looked up before they asked: who asks during a look shares the next one.
    """

    def __init__(self, name: str, look: Callable[[Question], Awaitable[Result]]) -> None:
        """A look is cancelled when all who share it have left. `name` is that of a span."""
        self._name = name
        self._look = look
        self._batchers: dict[Question, Batcher[None, Result]] = {}

    async def __call__(self, question: Question) -> Result:
        """Returns the answer, or raises what `look` does."""
        batcher = self._batchers.get(question)
        if batcher is None:
            batcher = self._batchers[question] = self._batcher(question)
        return await batcher(None)

    def _batcher(self, question: Question) -> Batcher[None, Result]:
        async def run(askers: Sequence[None]) -> Sequence[Result]:
            return [await self._look(question)] * len(askers)

        def idle() -> None:
            del self._batchers[question]

        return Batcher(self._name, run, largest=MOST_WAITING, at_once=SHARED_AT_ONCE, idle=idle)
