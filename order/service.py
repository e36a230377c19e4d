"""OrderService: orders as gRPC."""

import logging
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import grpc
from shop.order.v1 import order_pb2, order_pb2_grpc

from order import parse
from order.convert import event_messages, order_message
from order.domain import Draft, Item, Order, Status, StatusEvent, order_id, same_items, sources
from order.live.logs import Followers
from order.stock import ProductUnavailable, State, Stock, key_reused
from order.store import OrderStore
from runtime.batch import Shared
from runtime.errors import ApiError, aborted, failed_precondition, not_found, unavailable
from runtime.headers import Context, caller, expected_version, request_key, send_etag
from runtime.limits import CallerLimit, caller_of_call
from runtime.shielded import run_shielded
from runtime.subscriptions import LogNotFound, LogRewound, Subscription
from runtime.validate import parse_uuid

log = logging.getLogger(__name__)

NAME = order_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name

LOG_TIMEOUT = 5.0
"""Seconds for which a new stream waits for its order's log."""


class OrderService(order_pb2_grpc.OrderServiceServicer):
    """Validates, asks the product service and the store, and says in the API's words what came of it."""

    def __init__(
        self,
        store: OrderStore,
        stock: Stock,
        followers: Followers,
        caller_header: str,
        streams: CallerLimit,
        changed: Callable[[Status], None],
    ) -> None:
        """`changed` is told of each status that an order got here, after the commit."""
        self._store = store
        self._stock = stock
        self._followers = followers
        self._caller_header = caller_header
        self._streams = streams
        self._changed = changed
        self._listed = Shared("order.list", self._list)

    async def CreateOrder(self, request: order_pb2.CreateOrderRequest, context: Context) -> order_pb2.Order:
        draft = parse.draft(request)
        who = caller(context, self._caller_header)
        key = order_id(who, request_key(context, request.request_id))
        # Whole: a caller who leaves between the two steps leaves no hold behind.
        order = await run_shielded(self._place(key, who, draft, context.time_remaining()))
        return await _answer(order, context)

    async def _place(self, key: UUID, who: str, draft: Draft, patience: float | None) -> Order:
        """Sets stock aside, then writes the order. A crash in between leaves a hold that the reconciler frees."""
        try:
            await self._store.check_admission()
        except ApiError as refusal:
            if not refusal.reason:
                raise  # too many calls, or no database: a look for the order would be one more
            return await self._placed_before(key, draft, refusal)
        try:
            reservation = await self._stock.reserve(key, draft.lines, patience)
        except ApiError as refusal:
            if refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not refusal.reason:
                raise  # too many calls, again
            return await self._placed_before(key, draft, refusal)
        if reservation.state is not State.RELEASED:
            order = await self._store.insert(
                key, who, draft, reservation.currency, _in_sequence(draft, reservation.items)
            )
            if order:
                log.info("order placed", extra={"order_id": str(key), "number": order.number})
                self._changed(Status.PLACED)
                return order
        # The loser of ON CONFLICT does not see the winner's row; this second read does.
        before = await self._store.find(key)
        if before is None:
            raise _expired()
        if reservation.state is not State.RELEASED and not same_items(reservation.items, before.items):
            await self._give_back(key)
        return _replayed(before, draft)

    async def _placed_before(self, key: UUID, draft: Draft, refusal: ApiError) -> Order:
        """Returns the order that is there: it is the answer all the same, when nothing can be written, and when the
        product service is away, or was restored from a backup that knows nothing of it. Raises `refusal` otherwise."""
        before = await self._store.find(key)
        if before is None:
            raise refusal
        return _replayed(before, draft)

    async def _give_back(self, key: UUID) -> None:
        """Releases a reservation that is not that of the order with its id: a restored product database had lost the
        order's own, and its key was used for other goods. Or it is that of a tombstone, which may have none."""
        try:
            await self._stock.release(key)
            log.warning("the reservation of order %s had other items; released", key)
        except ProductUnavailable:
            log.warning("the reservation of order %s has other items, and product is away: run reconcile", key)

    async def GetOrder(self, request: order_pb2.GetOrderRequest, context: Context) -> order_pb2.Order:
        key = parse_uuid("id", request.id)
        order = await self._store.get(key)
        if order is None:
            raise _not_found(key)
        return await _answer(order, context)

    async def ListOrders(self, request: order_pb2.ListOrdersRequest, context: Context) -> order_pb2.ListOrdersResponse:
        return await self._listed(parse.listing(request))

    async def _list(self, listing: parse.Listing) -> order_pb2.ListOrdersResponse:
        want, cursor, size = listing
        orders = await self._store.page(want, cursor.after, size + 1)
        page, token = cursor.page(orders, size, order_message, lambda last: (last.create_time, last.id))
        return order_pb2.ListOrdersResponse(orders=page, next_page_token=token)

    async def ProcessOrder(self, request: order_pb2.ProcessOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.PROCESSED, request.id, request.etag, context)

    async def DeliverOrder(self, request: order_pb2.DeliverOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.DELIVERED, request.id, request.etag, context)

    async def ReceiveOrder(self, request: order_pb2.ReceiveOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.RECEIVED, request.id, request.etag, context)

    async def CancelOrder(self, request: order_pb2.CancelOrderRequest, context: Context) -> order_pb2.Order:
        return await self._move(Status.CANCELLED, request.id, request.etag, context)

    async def _move(self, target: Status, text: str, etag: str, context: Context) -> order_pb2.Order:
        key = parse_uuid("id", text)
        version = expected_version(context, etag)
        order, moved = await self._store.move(key, target, version)
        if order is None:
            raise _not_found(key)
        if moved:
            log.info("order %s", target.value, extra={"order_id": str(key), "version": order.version})
            self._changed(target)
        elif order.status != target:
            raise _refusal(order, target)
        return await _answer(order, context)

    async def StreamOrderStatus(
        self, request: order_pb2.StreamOrderStatusRequest, context: Context
    ) -> AsyncIterator[order_pb2.OrderStatusEvent]:
        key, after = parse_uuid("order_id", request.order_id), parse.after_version(request)
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
    """Waits until an order's log is here. A client that has seen more than the log holds follows it from its beginning,
    unless the order is finished: a restored database has lost what the client saw."""
    try:
        await subscription.ready(LOG_TIMEOUT)
    except TimeoutError:
        raise unavailable("the database is unavailable") from None
    except LogNotFound:
        raise _not_found(key) from None
    except LogRewound:
        if not subscription.final:
            subscription.restart()


def _in_sequence(draft: Draft, items: list[Item]) -> list[Item]:
    """The reserved items in the sequence of the request."""
    by_product = {UUID(item["product_id"]): item for item in items}
    return [by_product[line.product_id] for line in draft.lines]


def _replayed(order: Order, draft: Draft) -> Order:
    """What a request that came before is answered with."""
    if order.expired:
        raise _expired()
    if order.fingerprint != draft.fingerprint():
        raise key_reused()
    return order


def _refusal(order: Order, target: Status) -> ApiError:
    """Why an order did not get a status: its own does not lead there, or its version is not what was asked for."""
    if order.status not in sources(target):
        return failed_precondition(
            "ILLEGAL_TRANSITION",
            f"an order that is {order.status} cannot become {target.value}",
            **{"from": order.status, "to": target.value},
        )
    return aborted("ETAG_MISMATCH", f"the order has changed: its etag is {order.etag}")


def _expired() -> ApiError:
    return aborted("ORDER_EXPIRED", "an earlier attempt was given up and nothing was ordered; use a new key")


def _history_rolled_back() -> ApiError:
    return unavailable("the order's history was rolled back; restart the stream from version 0")


def _not_found(key: UUID) -> ApiError:
    return not_found("ORDER_NOT_FOUND", f"there is no order {key}", order_id=str(key))


async def _answer(order: Order, context: Context) -> order_pb2.Order:
    await send_etag(context, order.etag)
    return order_message(order)
