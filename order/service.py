"""OrderService: the public API of orders over gRPC."""

import logging
from collections.abc import AsyncIterator, Callable
from uuid import UUID

from shop.order.v1 import order_pb2, order_pb2_grpc

from order import parse
from order.checkout import Checkout
from order.convert import event_messages, order_message
from order.domain import Order, Status, StatusEvent, check_move, derive_id, not_found
from order.live.logs import Followers
from order.outcomes import Outcomes
from order.stock import Stock
from order.store import OrderStore
from order.tickets import Kind, Tickets
from order.viewers import Viewer, in_header, viewer_of
from runtime.access.caller import current
from runtime.access.gate import ORDER_TICKET
from runtime.batch import SharedLookup
from runtime.errors import ApiError, unavailable
from runtime.headers import Context, expected_version, header_values, request_key, send_etag
from runtime.limits import CallerLimit, caller_of_call
from runtime.refusals import DomainError
from runtime.shielded import run_shielded
from runtime.subscriptions import LogNotFound, LogRewound, Subscription
from runtime.times import set_timestamp

log = logging.getLogger(__name__)

NAME = order_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name

LOG_TIMEOUT = 5.0
"""How long a new stream waits for the event log of its order, in seconds."""


class OrderService(order_pb2_grpc.OrderServiceServicer):
    """Checks requests, runs them, and converts the results. The proto documents the methods."""

    def __init__(
        self,
        store: OrderStore,
        stock: Stock,
        followers: Followers,
        streams: CallerLimit,
        tickets: Tickets,
        on_change: Callable[[Order], None],
        outcomes: Outcomes,
    ) -> None:
        """Initializes the service.

        Args:
            store: The orders.
            stock: The product service.
            followers: The streams of this process.
            streams: The limit of StreamOrderStatus calls.
            tickets: Makes and reads tickets.
            on_change: Called after the commit of each status that an order got here.
            outcomes: Counts the checkouts and the refusals.
        """
        self._store = store
        self._checkout = Checkout(orders=store, stock=stock, on_change=on_change, outcomes=outcomes)
        self._followers = followers
        self._streams = streams
        self._tickets = tickets
        self._on_change = on_change
        self._outcomes = outcomes
        self._list_shared = SharedLookup("order.list", self._list)

    async def CreateOrder(self, request: order_pb2.CreateOrderRequest, context: Context) -> order_pb2.Order:
        draft = parse.draft(request)
        who = current()
        order_id = derive_id(who.scope, request_key(context, request.request_id))
        # Shielded: a client that disconnects between the two steps leaves no hold behind.
        order = await run_shielded(self._checkout.place(order_id, who, draft, context.time_remaining()))
        response = await _respond(order, context)
        if who.is_guest and not order.owner:
            response.ticket = self._tickets.issue(Kind.ORDER, order.id).text
        return response

    async def GetOrder(self, request: order_pb2.GetOrderRequest, context: Context) -> order_pb2.Order:
        order_id = parse.order_id(request)
        viewer = self._viewer(context, Kind.ORDER)
        order = await self._store.get(order_id)
        viewer.check(order_id, order.owner if order else None)
        if order is None:
            raise not_found(order_id)
        return await _respond(order, context)

    async def ListOrders(self, request: order_pb2.ListOrdersRequest, context: Context) -> order_pb2.ListOrdersResponse:
        return await self._list_shared(parse.listing(request, current().sees_only))

    async def _list(self, listing: parse.Listing) -> order_pb2.ListOrdersResponse:
        query, cursor, size = listing
        orders = await self._store.list(query, cursor.after, size + 1)
        page, token = cursor.page(orders, size, order_message, lambda order: (order.create_time, order.id))
        return order_pb2.ListOrdersResponse(orders=page, next_page_token=token)

    async def ProcessOrder(self, request: order_pb2.ProcessOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.PROCESSED, request, context)

    async def DeliverOrder(self, request: order_pb2.DeliverOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.DELIVERED, request, context)

    async def ReceiveOrder(self, request: order_pb2.ReceiveOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.RECEIVED, request, context)

    async def CancelOrder(self, request: order_pb2.CancelOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.CANCELLED, request, context)

    async def _move(self, target: Status, request: parse.Move, context: Context) -> order_pb2.Order:
        order_id = parse.order_id(request)
        version = expected_version(context, request.etag)
        order, moved = await self._store.move(order_id, target, version, current().sees_only)
        if order is None:
            raise self._outcomes.refused(not_found(order_id))
        if moved:
            log.info("order %s", target.value, extra={"order_id": str(order_id), "version": order.version})
            self._on_change(order)
        else:
            try:
                check_move(order, target)
            except DomainError as error:
                self._outcomes.refused(error)
                raise
        return await _respond(order, context)

    async def CreateOrderTicket(
        self, request: order_pb2.CreateOrderTicketRequest, context: Context
    ) -> order_pb2.CreateOrderTicketResponse:
        order_id = parse.order_id(request)
        viewer = self._viewer(context, Kind.ORDER)
        viewer.check(order_id, await self._store.get_owner(order_id))
        ticket = self._tickets.issue(Kind.STREAM, order_id)
        response = order_pb2.CreateOrderTicketResponse(ticket=ticket.text)
        set_timestamp(response.expire_time, ticket.expire_time)
        return response

    def _viewer(self, context: Context, *kinds: Kind) -> Viewer:
        """Returns who makes a call, with the ticket that they sent if it is of one of these kinds."""
        caller = current()
        # The header says nothing to a shop that verifies no tokens.
        sent = [] if caller.is_staff else in_header(header_values(context, ORDER_TICKET), *kinds)
        return viewer_of(caller, self._tickets, sent)

    async def StreamOrderStatus(
        self, request: order_pb2.StreamOrderStatusRequest, context: Context
    ) -> AsyncIterator[order_pb2.OrderStatusEvent]:
        key, after = parse.stream(request)
        viewer = self._viewer(context, Kind.ORDER, Kind.STREAM)
        await viewer.find_and_check(key, self._store.get_owner)
        with (
            self._streams.admit(caller_of_call(context)),
            self._followers.follow(str(key), after) as subscription,
        ):
            try:
                await _log_known(key, subscription)
                # By itself, since it would leave with the first event, and after a resume that may take long.
                await context.send_initial_metadata(())
                seen = subscription.version
                async for events in subscription:
                    for message in event_messages(str(key), seen, events):
                        yield message
                    seen = subscription.version
            except LogRewound:
                raise _history_rolled_back() from None


async def _log_known(key: UUID, subscription: Subscription[StatusEvent]) -> None:
    """Waits until an order's log is here.

    A client that has seen more than the log holds follows it from its beginning, unless the order is finished: a
    restored database has lost what the client saw.
    """
    try:
        await subscription.ready(LOG_TIMEOUT)
    except TimeoutError:
        raise unavailable("the database is unavailable") from None
    except LogNotFound:
        raise not_found(key) from None
    except LogRewound:
        if not subscription.final:
            subscription.restart()


def _history_rolled_back() -> ApiError:
    return unavailable("the order's history was rolled back; restart the stream from version 0")


async def _respond(order: Order, context: Context) -> order_pb2.Order:
    """Returns an order as a response, and sends its etag as a header."""
    await send_etag(context, order.etag)
    return order_message(order)
