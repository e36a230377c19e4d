"""StockService: stock set aside for orders, as gRPC. It is internal: Envoy does not route it."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

from shop.product.v1 import stock_pb2, stock_pb2_grpc

from product import stock_parse as parse
from product.convert import offer_message, reservation_message
from product.stock_batches import Outcome, StockBatches
from product.stock_store import StockStore
from runtime import pages
from runtime.errors import ApiError, from_domain, internal
from runtime.headers import Context
from runtime.limited_log import LimitedLines
from runtime.refusals import DomainError
from runtime.validate import parse_uuid

log = logging.getLogger(__name__)
log_refusal = LimitedLines(log, logging.INFO)
log_failure = LimitedLines(log, logging.ERROR, rate=1)

NAME = stock_pb2.DESCRIPTOR.services_by_name["StockService"].full_name

Message = TypeVar("Message")
Request = TypeVar("Request")


class StockService(stock_pb2_grpc.StockServiceServicer):
    """Reads requests, calls the store, and makes responses. Its methods are documented in stock.proto."""

    def __init__(self, store: StockStore, batches: StockBatches) -> None:
        self._store = store
        self._batches = batches

    async def ReserveStock(self, request: stock_pb2.ReserveStockRequest, context: Context) -> stock_pb2.Reservation:
        return _only(await self._batches.reserve([parse.hold(request)]))

    async def ConfirmReservation(
        self, request: stock_pb2.ConfirmReservationRequest, context: Context
    ) -> stock_pb2.Reservation:
        return _only(await self._batches.confirm([parse.reservation_id(request)]))

    async def ReleaseReservation(
        self, request: stock_pb2.ReleaseReservationRequest, context: Context
    ) -> stock_pb2.Reservation:
        return _only(await self._batches.release([parse.reservation_id(request)]))

    async def BatchReserveStock(
        self, request: stock_pb2.BatchReserveStockRequest, context: Context
    ) -> stock_pb2.BatchReserveStockResponse:
        parse.check_batch(request)
        results = await _batch("ReserveStock", request.requests, parse.hold, self._batches.reserve)
        return stock_pb2.BatchReserveStockResponse(results=results)

    async def BatchConfirmReservations(
        self, request: stock_pb2.BatchConfirmReservationsRequest, context: Context
    ) -> stock_pb2.BatchConfirmReservationsResponse:
        parse.check_batch(request)
        results = await _batch("ConfirmReservation", request.reservation_ids, _reservation_id, self._batches.confirm)
        return stock_pb2.BatchConfirmReservationsResponse(results=results)

    async def BatchReleaseReservations(
        self, request: stock_pb2.BatchReleaseReservationsRequest, context: Context
    ) -> stock_pb2.BatchReleaseReservationsResponse:
        parse.check_batch(request)
        results = await _batch("ReleaseReservation", request.reservation_ids, _reservation_id, self._batches.release)
        return stock_pb2.BatchReleaseReservationsResponse(results=results)

    async def ListExpiredReservations(
        self, request: stock_pb2.ListExpiredReservationsRequest, context: Context
    ) -> stock_pb2.ListExpiredReservationsResponse:
        cursor, size = parse.expired(request)
        found = await self._store.list_expired(cursor.after, size + 1)
        page = found[:size]
        return stock_pb2.ListExpiredReservationsResponse(
            reservation_ids=[str(each.id) for each in page],
            # As text: replicas of the previous release, which run beside this one during a rollout, read nothing else.
            next_page_token=cursor.token((page[-1].expire_time.isoformat(), page[-1].id)) if len(found) > size else "",
        )

    async def BatchGetReservations(
        self, request: stock_pb2.BatchGetReservationsRequest, context: Context
    ) -> stock_pb2.BatchGetReservationsResponse:
        found = await self._store.batch_get(parse.reservation_ids(request))
        reservations = [reservation_message(each) for each in found]
        pages.check_batch_fits("reservation_ids", reservations)
        return stock_pb2.BatchGetReservationsResponse(reservations=reservations)

    async def ListReservations(
        self, request: stock_pb2.ListReservationsRequest, context: Context
    ) -> stock_pb2.ListReservationsResponse:
        states, cursor, size = parse.reservations(request)
        found = await self._store.list(states, cursor.after, size + 1)
        reservations, token = cursor.page(found, size, reservation_message, lambda last: (last.id,))
        return stock_pb2.ListReservationsResponse(reservations=reservations, next_page_token=token)

    async def BatchGetOffers(
        self, request: stock_pb2.BatchGetOffersRequest, context: Context
    ) -> stock_pb2.BatchGetOffersResponse:
        # The most products with the longest names fit into one response.
        offers = await self._store.batch_get_offers(parse.product_ids(request))
        return stock_pb2.BatchGetOffersResponse(offers=[offer_message(each) for each in offers])

    async def PairDatabases(self, request: stock_pb2.PairDatabasesRequest, context: Context) -> stock_pb2.DatabasePair:
        order_database, product_database = parse.pair(request)
        pair = await self._store.pair(
            order_database, product_database, read_only=request.read_only, replace=request.replace
        )
        return stock_pb2.DatabasePair(
            product_database_id=str(pair.id), order_database_id=str(pair.partner_id) if pair.partner_id else ""
        )


async def _batch(
    method: str,
    messages: Sequence[Message],
    parse: Callable[[Message], Request],
    run: Callable[[Sequence[Request]], Awaitable[list[Outcome]]],
) -> list[stock_pb2.ReservationResult]:
    """Runs those requests of a batch that are well-formed.

    Args:
        method: The method that does the same for one request. It is named in the log.
        messages: The requests.
        parse: Reads one request.
        run: Runs the requests that could be read.

    Returns:
        The result of each request.
    """
    outcomes: dict[int, Outcome] = {}
    parsed: dict[int, Request] = {}
    for number, request in enumerate(messages):
        try:
            parsed[number] = parse(request)
        except ApiError as error:
            outcomes[number] = error
    if parsed:
        outcomes |= zip(parsed, await run(list(parsed.values())), strict=True)
    return [_result(method, outcomes[number]) for number in range(len(messages))]


def _result(method: str, outcome: Outcome) -> stock_pb2.ReservationResult:
    if not isinstance(outcome, Exception):
        return stock_pb2.ReservationResult(reservation=reservation_message(outcome))
    if isinstance(outcome, DomainError):
        outcome = from_domain(outcome)
    if isinstance(outcome, ApiError):
        code = outcome.code.name
        log_refusal(f"{method} in a batch: {code}", {"method": method, "code": code, "error": outcome.text})
    else:
        log_failure(f"{method} in a batch failed", error=outcome)
        outcome = internal()
    return stock_pb2.ReservationResult(error=outcome.status())


def _only(outcomes: list[Outcome]) -> stock_pb2.Reservation:
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return reservation_message(outcome)


def _reservation_id(text: str) -> UUID:
    return parse_uuid("reservation_id", text)
