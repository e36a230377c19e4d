"""Calls with batches of reservations, and what their results say."""

from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from shop.product.v1 import stock_pb2

from runtime.errors import parse_rpc_error, parse_status
from tests.support.product import ProductShop

HELD, CONFIRMED, RELEASED = (stock_pb2.Reservation.State.Value(name) for name in ("HELD", "CONFIRMED", "RELEASED"))

Result = stock_pb2.ReservationResult


async def reserve(shop: ProductShop, *requests: stock_pb2.ReserveStockRequest) -> Sequence[Result]:
    response = await shop.stock.BatchReserveStock(stock_pb2.BatchReserveStockRequest(requests=requests))
    return response.results


async def confirm(shop: ProductShop, *ids: str) -> Sequence[Result]:
    request = stock_pb2.BatchConfirmReservationsRequest(reservation_ids=ids)
    return (await shop.stock.BatchConfirmReservations(request)).results


async def release(shop: ProductShop, *ids: str) -> Sequence[Result]:
    request = stock_pb2.BatchReleaseReservationsRequest(reservation_ids=ids)
    return (await shop.stock.BatchReleaseReservations(request)).results


def states(results: Sequence[Result]) -> list[int]:
    assert all(each.HasField("reservation") for each in results), results
    return [each.reservation.state for each in results]


def reasons(results: Sequence[Result]) -> list[str]:
    """Returns the reason of each error, and an empty text for a reservation."""
    return [parse_status(each.error)[1] if each.HasField("error") else "" for each in results]


async def status_of_call(call: Any) -> dict[str, Any]:
    """Returns the status of a single call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    _, _, status = parse_rpc_error(caught.value)
    assert (status.code, status.message) == (caught.value.code().value[0], caught.value.details())
    return MessageToDict(status)
