"""The HTTP side: from a browser's request to the last byte of its stream."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from runtime.errors import ApiError, internal, not_found, unavailable
from runtime.limits import EXTERNAL_ADDRESS, caller_of
from runtime.topics import Watcher
from runtime.validate import Violations
from sse.config import SidecarConfig
from sse.streams import wire
from sse.streams.feed import Feed
from sse.streams.stream import End, Stream, Streams

log = logging.getLogger(__name__)

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 405,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}

FLUSH = 5.0
"""Seconds that the last bytes of a failed stream get to leave."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StatusStreams:
    """Answers the two paths of the order status stream."""

    def __init__(self, config: SidecarConfig, feed: Feed, streams: Streams) -> None:
        self._timing = config.timing
        self._buffer = config.limits.buffer
        self._feed = feed
        self._streams = streams

    def application(self) -> web.Application:
        app = web.Application(middlewares=[errors])
        # With and without a slash at the end, as everywhere at the edge. HEAD is answered by the same.
        app.router.add_get("/api/orders/stream{slash:/?}", self.by_query)
        app.router.add_get("/api/v1/orders/{order_id}/status/stream{slash:/?}", self.by_path)
        return app

    async def by_query(self, request: web.Request) -> web.StreamResponse:
        given = request.query.getall("order_id", [])
        return await self._follow(request, given[0] if len(given) == 1 else "")

    async def by_path(self, request: web.Request) -> web.StreamResponse:
        return await self._follow(request, request.match_info["order_id"])

    async def _follow(self, request: web.Request, given: str) -> web.StreamResponse:
        with Violations() as check:
            order_id = str(check.uuid("order_id", given))
        seen = wire.last_event_id(last_event_id(request))
        stream = self._streams.join(client_address(request), order_id)
        watcher = self._feed.topics.watch(order_id, 0, stream.wake)
        try:
            await self._wait_for_log(stream, watcher, seen)
            topic = watcher.topic
            if topic.missing:
                raise not_found("ORDER_NOT_FOUND", f"order {order_id} does not exist", order_id=order_id)
            watcher.version = seen if seen <= topic.version else 0
            if watcher.done:
                return web.Response(status=204)
            if request.method == "HEAD":
                return web.Response(headers=wire.HEADERS)
            return await self._send(request, stream, watcher)
        finally:
            self._feed.topics.unwatch(watcher)
            self._streams.leave(stream)

    async def _wait_for_log(self, stream: Stream, watcher: Watcher[wire.StatusEvent], seen: int) -> None:
        """Waits until the order's log is here. Raises UNAVAILABLE if that takes too long."""
        topic = watcher.topic

        def behind() -> bool:
            return topic.version < seen and not topic.final and not topic.missing

        try:
            async with asyncio.timeout(self._timing.start):
                await self._until(stream, lambda: topic.loaded or topic.missing)
                if not behind():
                    return
                # The browser may come from a process that was ahead. Only a version that is not there when the log is
                # read anew was never there; an answer that was on its way already is given time to be overtaken.
                self._feed.topics.renew(topic.key)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.catch_up):
                        await self._until(stream, lambda: not behind())
                await self._until(stream, lambda: topic.answered or not behind())
        except TimeoutError:
            raise self._away() from None

    async def _until(self, stream: Stream, condition: Callable[[], bool]) -> None:
        while not condition():
            await stream.wait()
            if stream.end:
                raise self._away()

    @staticmethod
    def _away() -> ApiError:
        return unavailable("the order service does not answer", wire.retry_milliseconds() / 1000)

    async def _send(
        self, request: web.Request, stream: Stream, watcher: Watcher[wire.StatusEvent]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=wire.HEADERS)
        writer = await response.prepare(request)
        if writer is None or request.transport is None:
            return response  # the browser has gone
        request.transport.set_write_buffer_limits(high=self._buffer)
        outlet = Outlet(request, response, writer, self._timing.slow)
        self._streams.live(stream)
        try:
            await self._relay(stream, watcher, outlet)
        except (ConnectionError, SlowReaderError):
            pass  # The browser has gone, or is gone now; it resumes with its Last-Event-ID.
        except Exception:
            log.exception("a stream failed")
            await outlet.fail(internal())
        return response

    async def _relay(self, stream: Stream, watcher: Watcher[wire.StatusEvent], outlet: "Outlet") -> None:
        beaten = False
        while True:
            seen = watcher.version
            events = watcher.take()
            blocks = [event.block for event in events]
            if events and events[0].version > seen + 1:
                blocks.insert(0, wire.gone(events[0].version))
            if watcher.done:
                await outlet.write(b"".join([*blocks, wire.COMPLETED]))
                return
            if stream.beat:
                stream.beat = False
                blocks += [wire.HEARTBEAT] if beaten else [wire.retry(), wire.HEARTBEAT]
                beaten = True
            if blocks:
                await outlet.write(b"".join(blocks))
            if watcher.topic.missing:
                # Its database was restored. The browser comes back, and is told what there is by then.
                await outlet.fail(unavailable("the order is not what it was any more"))
                return
            if stream.end is End.LOST:
                await outlet.fail(self._away())
                return
            if stream.end is End.AWAY:
                await outlet.close()
                return
            await stream.wait()


class SlowReaderError(Exception):
    """A browser left its buffer full for too long; its connection was cut."""


class Outlet:
    """The way to one browser: what waits in it is bounded."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, writer: AbstractStreamWriter, slow: float
    ) -> None:
        """`slow` is the seconds for which the transport's buffer may stay full."""
        self._request = request
        self._response = response
        self._writer = writer
        self._slow = slow

    async def write(self, data: bytes) -> None:
        """Raises SlowReaderError if the buffer is full and stays so, ConnectionError if the browser has gone."""
        try:
            # The write waits by itself now and then, for all that was written before; the drain always.
            async with asyncio.timeout(self._slow):
                await self._response.write(data)
                await self._writer.drain()
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise SlowReaderError from None

    async def close(self) -> None:
        """A clean end before the order's: the browser comes back by itself."""
        self._response.force_close()
        await self.write(wire.retry())

    async def fail(self, error: ApiError) -> None:
        """Says what failed and hangs up, without the last chunk: nobody takes it for the stream's end."""
        with suppress(ConnectionError, SlowReaderError):
            await self.write(wire.retry() + wire.error(error.status()))
        if self._request.transport is not None:
            asyncio.get_running_loop().call_later(FLUSH, self._request.transport.abort)
            self._request.transport.close()


def last_event_id(request: web.Request) -> str:
    """What the client saw last: from the header, or from the query, where polyfills of EventSource put it."""
    names = [request.query.getall(name, []) for name in wire.LAST_EVENT_ID_PARAMETERS]
    return request.headers.get("Last-Event-ID") or next((values[-1] for values in names if values), "")


def client_address(request: web.Request) -> str:
    """Who asks, as the edge saw it: the last hop is the edge's own word."""
    external = request.headers.get(EXTERNAL_ADDRESS, "")
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return caller_of(external or forwarded or request.remote or "")


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure is google.rpc.Status in JSON; what passes by itself is an EventSource's reason to come back."""
    try:
        return await handler(request)
    except ApiError as error:
        return refusal(request, error)
    except web.HTTPMethodNotAllowed as error:
        answer = refusal(request, ApiError(grpc.StatusCode.UNIMPLEMENTED, f"{request.method} is not allowed here"))
        answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except web.HTTPException:
        return refusal(request, ApiError(grpc.StatusCode.NOT_FOUND, "there is nothing at this path"))
    except Exception:
        log.exception("%s failed", request.path)
        return refusal(request, internal())


def refusal(request: web.Request, error: ApiError) -> web.Response:
    if error.is_transient and "text/event-stream" in request.headers.get("Accept", "").lower():
        # EventSource gives up for good on any other answer.
        answer = web.Response(body=wire.retry(), headers=wire.HEADERS)
    else:
        body = wire.status_json(error.status()).encode()
        headers = {"Content-Type": "application/json"}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        answer = web.Response(status=_HTTP_STATUS.get(error.code, 500), body=body, headers=headers)
    return answer
