"""Orders move as the table of transitions says, if the etag matches. A repeated move changes nothing."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from order.domain import TRANSITIONS, Status
from tests.support.invariants_order import check_logs
from tests.support.order import PATHS, FakeStock, OrderShop, order_shop, status_name
from tests.support.product import UNKNOWN, refused

TARGETS = [status.value for status in Status if status is not Status.PLACED]


@pytest.fixture
async def shop(order_database: str) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


async def order_in(shop: OrderShop, status: str) -> str:
    order = await shop.create()
    for step in PATHS[status]:
        await shop.move(step, order.id)
    return order.id


async def test_update_time_never_decreases(shop: OrderShop) -> None:
    """Even if the clock of the server does: the events of a stream must be in order."""
    order = await shop.create()
    async with shop.connection() as connection:
        await connection.execute("UPDATE orders SET update_time = now() + '1 hour' WHERE id = %s", (order.id,))
    ahead = await shop.get(order.id)
    after = await shop.move("PROCESSED", order.id)
    assert after.update_time == ahead.update_time


@pytest.mark.parametrize("start", list(PATHS))
async def test_moves_follow_the_transition_table(shop: OrderShop, start: str) -> None:
    """Moves of the table succeed, a repeated move returns the order, and any other is refused and changes nothing."""
    for target in TARGETS:
        order_id = await order_in(shop, start)
        before = await shop.get(order_id)
        if Status(target) in TRANSITIONS[Status(start)]:
            after = await shop.move(target, order_id)
            assert status_name(after) == target
            assert int(after.etag) == int(before.etag) + 1
            assert await shop.get(order_id) == after
        elif target == start:
            assert await shop.move(target, order_id, etag="stale") == before
        else:
            with refused() as error:
                await shop.move(target, order_id)
            assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ILLEGAL_TRANSITION")
            assert error.metadata == {"from": start, "to": target}
            assert await shop.get(order_id) == before
    async with shop.connection() as connection:
        await check_logs(connection)


async def test_move_of_unknown_order_is_not_found(shop: OrderShop) -> None:
    with refused() as error:
        await shop.move("PROCESSED", UNKNOWN)
    assert (error.code, error.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")


async def test_malformed_id_is_refused(shop: OrderShop) -> None:
    with refused() as error:
        await shop.move("CANCELLED", "1")
    assert set(error.fields) == {"id"}


@pytest.mark.parametrize("etag", ["2", "x", "-1", "01", "9" * 30, "１"])
async def test_stale_etag_changes_nothing(shop: OrderShop, etag: str) -> None:
    order = await shop.create()
    with refused() as error:
        await shop.move("PROCESSED", order.id, etag=etag)
    assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert await shop.get(order.id) == order


async def test_etag_is_accepted_from_field_and_header(shop: OrderShop) -> None:
    order = await shop.create()
    processed = await shop.move("PROCESSED", order.id, etag=order.etag)
    with refused() as error:
        await shop.move("DELIVERED", order.id, metadata=(("if-match", f'"{order.etag}"'),))
    assert error.reason == "ETAG_MISMATCH"
    delivered = await shop.move("DELIVERED", order.id, metadata=(("if-match", f'"{processed.etag}"'),))
    assert status_name(delivered) == "DELIVERED"


async def test_concurrent_moves_move_an_order_once(shop: OrderShop) -> None:
    order = await shop.create()
    results = await asyncio.gather(*(shop.move("PROCESSED", order.id) for _ in range(20)))
    assert {result.etag for result in results} == {"2"}


async def test_concurrent_process_and_cancel_report_final_status(shop: OrderShop) -> None:
    """Cancelling is legal before and after processing, so it succeeds. Processing succeeds or is refused."""
    orders = [await shop.create() for _ in range(10)]
    results = await asyncio.gather(
        *(shop.move("CANCELLED", order.id) for order in orders),
        *(shop.move("PROCESSED", order.id) for order in orders),
        return_exceptions=True,
    )
    assert all(status_name(result) == "CANCELLED" for result in results[:10])
    for result in results[10:]:
        if isinstance(result, BaseException):
            assert isinstance(result, grpc.aio.AioRpcError)
            assert result.code() is grpc.StatusCode.FAILED_PRECONDITION
        else:
            assert status_name(result) == "PROCESSED"
    async with shop.connection() as connection:
        await check_logs(connection)
