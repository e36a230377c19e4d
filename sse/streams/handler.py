"""The HTTP side: from a browser's request to the last byte of its stream."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.typedefs import Middleware

from runtime.errors import TICKET_EXPIRED, ApiError, internal, not_found, unavailable
from runtime.limited_log import LimitedLines
from runtime.limits import EXTERNAL_ADDRESS, caller_of
from runtime.logs import CALL
from runtime.subscriptions import LogError, LogNotFound, LogRewound, Subscription
from runtime.telemetry.traces import Traces
from runtime.topics import Topics
from runtime.validate import Violations
from sse.config import SidecarConfig
from sse.streams import tracing, wire
from sse.streams.authorization import TICKET_PARAMETER, Authorization
from sse.streams.connections import CloseReason, Connection, Connections, StreamClosedError
from sse.streams.counts import INTERNAL, OPENED, OVER, EndReason, StreamCounts
from sse.streams.record import RequestIds, StreamRecord

log_failure = LimitedLines(logging.getLogger(__name__), logging.ERROR, rate=1)

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 405,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}

FLUSH_TIMEOUT = 5.0
"""Seconds that the last bytes of a failed stream get to leave."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StatusStreams:
    """Handles the two paths of the order status stream."""

    def __init__(
        self,
        config: SidecarConfig,
        topics: Topics[wire.StatusEvent],
        connections: Connections,
        authorization: Authorization | None,
        traces: Traces | None = None,
    ) -> None:
        """Initializes the handler.

        Args:
            config: The timeouts and limits.
            topics: The logs of the watched orders.
            connections: Counts streams.
            authorization: Decides who may follow an order; None: everybody may.
            traces: Makes a span of each request for a stream.
        """
        self._authorization = authorization
        self._middlewares: list[Middleware] = [errors]
        if traces and traces.enabled:
            self._middlewares.insert(0, tracing.traced(traces))
        self._timing = config.timing
        self._limits = config.limits
        self._topics = topics
        self._connections = connections
        self.counts = StreamCounts()

    def application(self) -> web.Application:
        """Returns the application with its routes."""
        app = web.Application(middlewares=self._middlewares)
        # With and without a slash at the end, as everywhere at the edge. HEAD has the same handler.
        app.router.add_get("/api/orders/stream{slash:/?}", self.by_query)
        app.router.add_get("/api/v1/orders/{order_id}/status/stream{slash:/?}", self.by_path)
        return app

    async def by_query(self, request: web.Request) -> web.StreamResponse:
        """Streams the order that the query names."""
        given = request.query.getall("order_id", [])
        return await self._stream(request, given[0] if len(given) == 1 else "")

    async def by_path(self, request: web.Request) -> web.StreamResponse:
        """Streams the order that the path names."""
        return await self._stream(request, request.match_info["order_id"])

    async def _stream(self, request: web.Request, given: str) -> web.StreamResponse:
        record = StreamRecord()
        try:
            return await self._admit(request, given, record)
        except ApiError as error:
            self._count(record, error.code.name, error.text)
            raise
        except Exception:
            self._count(record, INTERNAL)
            raise
        finally:
            record.write()

    def _count(self, record: StreamRecord, outcome: str, error: str = "") -> None:
        self.counts.opened[outcome] += 1
        record.result, record.error = outcome, error

    async def _admit(self, request: web.Request, given: str, record: StreamRecord) -> web.StreamResponse:
        with Violations() as check:
            order_id = str(check.uuid("order_id", given))
            if len(request.query.getall(TICKET_PARAMETER, [])) > 1:
                check.add(TICKET_PARAMETER, "must be given once")
        record.order_id = order_id
        last_event = last_event_id(request)
        address = client_address(request)
        with self._open(address) as connection:
            if self._authorization:
                try:
                    subject = await self._authorization.check(request, order_id)
                except ApiError as error:
                    if error.reason == TICKET_EXPIRED and last_event and request.method != "HEAD":
                        # A browser would not show why it got a 401. It reconnects after this, and then gets the 204.
                        self._count(record, error.code.name, error.text)
                        return _after_expired_ticket(error, last_event)
                    raise
                record.caller = self._authorization.describe(subject)
                self._connections.count_for(connection, f"sub {subject}" if subject else address)
            return await self._follow(request, connection, record, wire.last_event_id(last_event))

    def _open(self, address: str) -> Connection:
        """Returns a connection that counts for an address or, until it is known who the client is, apart."""
        if self._authorization is None:
            return self._connections.open(address)
        return self._connections.open(f"new {address}", self._limits.authorizations_per_address)

    async def _follow(
        self, request: web.Request, connection: Connection, record: StreamRecord, seen: int
    ) -> web.StreamResponse:
        order_id = record.order_id
        with Subscription(self._topics, order_id, seen, wakeup=connection) as subscription:
            try:
                await subscription.ready(self._timing.log_timeout)
            except (TimeoutError, StreamClosedError):
                raise _upstream_unavailable() from None
            except LogNotFound:
                raise not_found("ORDER_NOT_FOUND", f"order {order_id} not found", order_id=order_id) from None
            except LogRewound:
                subscription.restart()  # the version that the browser claims was never there, or is no longer
            if subscription.done:
                self._count(record, OVER)
                return web.Response(status=204)
            if request.method == "HEAD":
                record.result = OPENED
                return web.Response(headers=wire.HEADERS)
            tracing.end_opening(request, subscription.unread)
            return await self._send(request, connection, subscription, record)

    async def _send(
        self,
        request: web.Request,
        connection: Connection,
        subscription: Subscription[wire.StatusEvent],
        record: StreamRecord,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=wire.HEADERS)
        writer = await response.prepare(request)
        if writer is None or request.transport is None:
            return response  # the browser has gone
        request.transport.set_write_buffer_limits(high=self._limits.buffer)
        outlet = Outlet(request, response, writer, self._timing.slow_reader_timeout)
        self._connections.start_heartbeats(connection)
        self.counts.opened[OPENED] += 1
        # Of a browser that has gone: an idle stream is cancelled then. It resumes with its Last-Event-ID.
        reason = EndReason.CLIENT
        try:
            reason = await self._relay(connection, subscription, outlet, record)
        except ConnectionError:
            pass
        except SlowReaderError:
            reason = EndReason.SLOW_READER
        except Exception as error:
            reason = EndReason.ERROR
            log_failure("a stream failed", error=error)
            await outlet.fail(internal())
        finally:
            self.counts.closed[reason] += 1
            record.result = reason
        return response

    async def _relay(
        self,
        connection: Connection,
        subscription: Subscription[wire.StatusEvent],
        outlet: "Outlet",
        record: StreamRecord,
    ) -> EndReason:
        """Writes events and heartbeats until the order is finished, or the stream has to end before. Returns why."""
        hinted = False
        try:
            while True:
                seen = subscription.version
                events = subscription.take()
                self.counts.events += len(events)
                record.events += len(events)
                blocks = [event.block for event in events]
                if events and events[0].version > seen + 1:
                    blocks.insert(0, wire.pruned_notice(events[0].version))
                if subscription.done:
                    await outlet.write(b"".join([*blocks, wire.COMPLETED]))
                    return EndReason.COMPLETED
                if connection.heartbeat_due:
                    connection.heartbeat_due = False
                    blocks += [wire.HEARTBEAT] if hinted else [wire.retry(), wire.HEARTBEAT]
                    hinted = True
                if blocks:
                    await outlet.write(b"".join(blocks))
                await connection.wait()
        except LogError:
            # The browser comes back, and gets what there is by then.
            await outlet.fail(unavailable("the order's history was rolled back"))
            return EndReason.REWOUND
        except StreamClosedError as closed:
            if closed.reason is CloseReason.SHUTDOWN:
                await outlet.close()
                return EndReason.SHUTDOWN
            await outlet.fail(_upstream_unavailable())
            return EndReason.UPSTREAM_LOST


def _after_expired_ticket(error: ApiError, last_event: str) -> web.Response:
    """Returns the response to a browser that reconnects with an expired ticket: why, and next time that it is over."""
    if last_event == wire.TICKET_EXPIRED_ID:
        return web.Response(status=204)
    return web.Response(body=wire.ticket_expired(error.status()), headers=wire.HEADERS)


def _upstream_unavailable() -> ApiError:
    return unavailable("the order service is unavailable", wire.retry_milliseconds() / 1000)


class SlowReaderError(Exception):
    """A browser left its buffer full for too long; its connection was cut."""


class Outlet:
    """Writes to one browser, with a bounded buffer."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, writer: AbstractStreamWriter, timeout: float
    ) -> None:
        """`timeout` is how long the transport's buffer may stay full, in seconds."""
        self._request = request
        self._response = response
        self._writer = writer
        self._timeout = timeout

    async def write(self, data: bytes) -> None:
        """Writes, and waits while the buffer is full.

        Raises:
            SlowReaderError: The buffer stayed full.
            ConnectionError: The browser has gone.
        """
        try:
            # The write waits by itself now and then, for all that was written before; the drain always.
            async with asyncio.timeout(self._timeout):
                await self._response.write(data)
                await self._writer.drain()
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise SlowReaderError from None

    async def close(self) -> None:
        """Ends the response cleanly, without the final event: the browser comes back by itself."""
        self._response.force_close()
        await self.write(wire.retry())

    async def fail(self, error: ApiError) -> None:
        """Writes what failed and hangs up without the last chunk, so that nobody takes it for the stream's end."""
        with suppress(ConnectionError, SlowReaderError):
            await self.write(wire.retry() + wire.error(error.status()))
        if self._request.transport is not None:
            asyncio.get_running_loop().call_later(FLUSH_TIMEOUT, self._request.transport.abort)
            self._request.transport.close()


def last_event_id(request: web.Request) -> str:
    """Returns what the client saw last, from the header, or from the query, where polyfills of EventSource put it."""
    names = [request.query.getall(name, []) for name in wire.LAST_EVENT_ID_PARAMETERS]
    return request.headers.get("Last-Event-ID") or next((values[-1] for values in names if values), "")


def client_address(request: web.Request) -> str:
    """Returns the client's address as the edge saw it: only the last hop is set by the edge itself."""
    external = request.headers.get(EXTERNAL_ADDRESS, "")
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return caller_of(external or forwarded or request.remote or "")


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns errors into google.rpc.Status as JSON; tells an EventSource to reconnect if an error is transient."""
    CALL.set(RequestIds(request))
    try:
        return await handler(request)
    except ApiError as error:
        return refusal(request, error)
    except web.HTTPMethodNotAllowed as error:
        response = refusal(request, ApiError(grpc.StatusCode.UNIMPLEMENTED, f"{request.method} is not allowed here"))
        response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.HTTPException:
        return refusal(request, ApiError(grpc.StatusCode.NOT_FOUND, "path not found"))
    except Exception as error:
        log_failure("a request failed", {"path": request.path}, error)
        return refusal(request, internal())


def refusal(request: web.Request, error: ApiError) -> web.Response:
    """Returns the response that says why a request failed."""
    if error.is_transient and "text/event-stream" in request.headers.get("Accept", "").lower():
        # EventSource gives up for good on any other response.
        response = web.Response(body=wire.retry(), headers=wire.HEADERS)
    else:
        body = wire.status_json(error.status()).encode()
        headers = {"Content-Type": "application/json"}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        if error.challenge:
            headers["WWW-Authenticate"] = error.challenge
        response = web.Response(status=_HTTP_STATUS.get(error.code, 500), body=body, headers=headers)
    return response
