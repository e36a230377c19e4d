"""StockService: stock set aside for orders, as gRPC. Internal: the edge does not route it."""

import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from shop.product.v1 import stock_pb2, stock_pb2_grpc

from product import request
from product.convert import reservation_message
from product.reservation import Item, Reservation, check_same, refusal, reservation_not_found
from product.stock_store import StockStore
from runtime import pages
from runtime.errors import unavailable
from runtime.headers import Context
from runtime.validate import parse_uuid

log = logging.getLogger(__name__)

NAME = stock_pb2.DESCRIPTOR.services_by_name["StockService"].full_name

LOOKS = 3
"""How often a transition is tried on a reservation that changes under it."""


class StockService(stock_pb2_grpc.StockServiceServicer):
    """Validates, asks the store, and says in the API's words what came of it."""

    def __init__(self, store: StockStore) -> None:
        self._store = store

    async def ReserveStock(self, message: stock_pb2.ReserveStockRequest, context: Context) -> stock_pb2.Reservation:
        reservation_id, wanted, ttl = request.reservation(message)
        candidates = await self._store.reserve(reservation_id, wanted, ttl)
        expire_time = candidates[0].expire_time
        if expire_time is None:
            # It was there before, or cannot be had. The one comes first: what is left may be too little because of it.
            before = await self._store.get(reservation_id)
            if before is None:
                raise refusal(candidates)
            return reservation_message(check_same(before, wanted))
        log.info("stock reserved", extra={"reservation_id": reservation_id, "items": len(wanted)})
        items = tuple(
            Item(
                product_id=one.product_id,
                quantity=one.quantity,
                name=one.name or "",
                currency=one.currency or "",
                price_micros=one.price_micros or 0,
            )
            for one in candidates
        )
        return reservation_message(Reservation(id=reservation_id, state="HELD", items=items, expire_time=expire_time))

    async def ConfirmReservation(
        self, message: stock_pb2.ConfirmReservationRequest, context: Context
    ) -> stock_pb2.Reservation:
        reservation_id = parse_uuid("reservation_id", message.reservation_id)
        return await self._change(
            reservation_id, self._store.confirm, "reservation confirmed", ("CONFIRMED", "RELEASED")
        )

    async def ReleaseReservation(
        self, message: stock_pb2.ReleaseReservationRequest, context: Context
    ) -> stock_pb2.Reservation:
        reservation_id = parse_uuid("reservation_id", message.reservation_id)
        return await self._change(reservation_id, self._store.release, "reservation released", ("RELEASED",))

    async def _change(
        self,
        reservation_id: UUID,
        change: Callable[[UUID], Awaitable[Reservation | None]],
        said: str,
        settled: tuple[str, ...],
    ) -> stock_pb2.Reservation:
        """Makes a transition. A reservation in one of the states `settled` is answered as it is."""
        for _ in range(LOOKS):
            reservation = await change(reservation_id)
            if reservation:
                log.info(said, extra={"reservation_id": reservation_id})
                return reservation_message(reservation)
            reservation = await self._store.get(reservation_id)
            if reservation is None:
                raise reservation_not_found(reservation_id)
            if reservation.state in settled:
                return reservation_message(reservation)
        raise unavailable("the reservation is being changed", 0.1)

    async def ListExpiredReservations(
        self, message: stock_pb2.ListExpiredReservationsRequest, context: Context
    ) -> stock_pb2.ListExpiredReservationsResponse:
        after, size = request.expired(message)
        found = await self._store.expired(after, size + 1)
        page = found[:size]
        return stock_pb2.ListExpiredReservationsResponse(
            reservation_ids=[str(each.id) for each in page],
            next_page_token=request.expired_token(page[-1].expire_time, page[-1].id) if len(found) > size else "",
        )

    async def BatchGetReservations(
        self, message: stock_pb2.BatchGetReservationsRequest, context: Context
    ) -> stock_pb2.BatchGetReservationsResponse:
        found = await self._store.batch_get(request.reservation_ids(message))
        reservations = [reservation_message(each) for each in found]
        pages.whole("reservation_ids", reservations)
        return stock_pb2.BatchGetReservationsResponse(reservations=reservations)

    async def ListReservations(
        self, message: stock_pb2.ListReservationsRequest, context: Context
    ) -> stock_pb2.ListReservationsResponse:
        states, query, after, size = request.reservations(message)
        found = await self._store.page(states, after, size + 1)
        page, token = pages.page(found, size, reservation_message, lambda last: pages.encode(query, [str(last.id)]))
        return stock_pb2.ListReservationsResponse(reservations=page, next_page_token=token)

    async def PairDatabases(self, message: stock_pb2.PairDatabasesRequest, context: Context) -> stock_pb2.DatabasePair:
        order_database, product_database = request.pair(message)
        pair = await self._store.pair(
            order_database, product_database, read_only=message.read_only, replace=message.replace
        )
        return stock_pb2.DatabasePair(
            product_database_id=str(pair.id), order_database_id=str(pair.partner_id) if pair.partner_id else ""
        )
