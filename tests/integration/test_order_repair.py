"""`order reconcile` finds, reports and repairs the differences that a restored database has left."""

import asyncio
import random
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import grpc
import pytest
from shop.order.v1 import order_pb2

from order import stock as stock_module
from order.domain import derive_id
from tests.support.both import Both, both_shops
from tests.support.order import status_name
from tests.support.product import refusal_of, refused

NOTHING = {"reserved", "released", "confirmed", "cancelled again", "lost orders", "orders without stock"}


@pytest.fixture
async def both(order_database: str, product_database: str) -> AsyncIterator[Both]:
    async with both_shops(order_database, product_database) as both:
        yield both


def found(lines: list[str]) -> set[str]:
    """Returns the kinds of findings that the summary counts."""
    summary = next(line for line in lines if line.startswith("compared: "))
    return {kind for kind in NOTHING if f" {kind}" in summary}


async def test_consistent_shop_has_no_findings(both: Both) -> None:
    product = await both.products.create()
    await both.shop.create({product.id: 1})
    cancelled = await both.shop.create({product.id: 1})
    await both.shop.move("CANCELLED", cancelled.id)
    await both.settle()
    assert await both.reconcile("--dry-run") == ["compared: 1 reservations with stock, 1 orders not cancelled"]


async def test_stock_of_lost_orders_is_released(both: Both) -> None:
    product = await both.products.create("Mug", stock=10)
    key = str(uuid4())
    kept, gone = await both.shop.create({product.id: 1}), await both.shop.create({product.id: 3}, request_id=key)
    await both.settle()
    await both.in_orders("DELETE FROM orders WHERE id = %s", gone.id)

    lines = await both.reconcile("--dry-run")
    assert lines == [
        f'order {gone.id} does not exist, but has stock: 3 × "Mug"; to be released',
        f'stock of product {product.id} "Mug": 3 to be released',
        "compared: 2 reservations with stock, 1 lost orders, 1 released, 1 orders not cancelled",
        "this was a dry run; run the command without --dry-run to make these changes",
    ]
    assert await both.products.stock_of(product.id) == 6, "nothing was changed"

    lines = await both.reconcile()
    assert lines[0] == f'order {gone.id} does not exist, but has stock: 3 × "Mug"; released'
    await both.settle()
    assert await both.products.stock_of(product.id) == 9
    assert found(await both.reconcile()) == set()
    with refused() as error:
        await both.shop.create({product.id: 3}, request_id=key)
    assert error.reason == "ORDER_EXPIRED", "a late retry cannot bring it back without its stock"
    assert await both.shop.get(kept.id)


async def test_retry_before_the_repair_restores_the_order(both: Both) -> None:
    product = await both.products.create(stock=10)
    key = str(uuid4())
    gone = await both.shop.create({product.id: 3}, request_id=key)
    await both.settle()
    await both.in_orders("DELETE FROM orders WHERE id = %s", gone.id)
    assert (await both.shop.create({product.id: 3}, request_id=key)).id == gone.id
    await both.settle()
    assert found(await both.reconcile()) == set()
    assert await both.products.stock_of(product.id) == 7


async def test_retry_during_the_repair_has_stock_or_fails(both: Both) -> None:
    """Its reservation is confirmed, and its row is being written. Row or tombstone: the first one decides."""
    product = await both.products.create(stock=10)
    key = str(uuid4())
    gone = await both.shop.create({product.id: 3}, request_id=key)
    await both.settle()
    await both.in_orders("DELETE FROM orders WHERE id = %s", gone.id)
    async with both.shop.connection() as other, other.transaction():
        await other.execute("LOCK TABLE orders IN SHARE MODE")
        retry = asyncio.create_task(both.shop.create({product.id: 3}, request_id=key))
        await asyncio.sleep(0.5)
        repair = asyncio.create_task(both.reconcile())
        await asyncio.sleep(0.5)
        assert not retry.done()
    (answer,) = await asyncio.gather(retry, return_exceptions=True)
    await repair
    await both.settle()
    if isinstance(answer, grpc.aio.AioRpcError):
        assert refusal_of(answer).reason == "ORDER_EXPIRED"
        assert await both.products.stock_of(product.id) == 10
    else:
        assert await both.products.stock_of(product.id) == 7


async def test_lost_cancellation_is_repeated(both: Both) -> None:
    product = await both.products.create(stock=10)
    order = await both.shop.create({product.id: 3})
    await both.shop.move("CANCELLED", order.id)
    await both.settle()
    await both.in_orders("UPDATE orders SET status = 'PLACED', version = 1 WHERE id = %s", order.id)
    await both.in_orders("DELETE FROM order_event WHERE order_id = %s AND version > 1", order.id)
    lines = await both.reconcile()
    assert lines[0] == f"order {order.id} ({order.number}) was cancelled after the backup; cancelled again"
    await both.settle()
    assert status_name(await both.shop.get(order.id)) == "CANCELLED"
    assert await both.products.stock_of(product.id) == 10


async def test_lost_reservations_are_made_if_stock_is_left(
    both: Both,
) -> None:
    mug, cup = await both.products.create("Mug", stock=10), await both.products.create("Cup", stock=5)
    had = await both.shop.create({mug.id: 3})
    short = await both.shop.create({mug.id: 1, cup.id: 5})
    await both.settle()
    for order in (had, short):
        await both.lose_reservation(order.id)
    later = await both.shop.create({cup.id: 1})  # sold what was sold already
    lines = await both.reconcile()
    assert set(lines[:2]) == {
        f'order {had.id} ({had.number}) has lost its reservation: 3 × "Mug"; reserved',
        f'order {short.id} ({short.number}) has lost its reservation: 1 × "Mug", 5 × "Cup"; NOT RESERVED:'
        ' insufficient stock of "Cup": 5 requested, 4 available',
    }
    assert lines[-1] == "orders that need attention: 1; see above"
    assert await both.products.stock_of(mug.id) == 7

    await both.shop.move("CANCELLED", short.id)
    await both.settle()
    assert found(await both.reconcile()) == set()
    assert status_name(await both.shop.get(later.id)) == "PLACED"


async def test_holds_are_confirmed_or_released_by_status(both: Both) -> None:
    product = await both.products.create(stock=10)
    live, cancelled = [await both.shop.create({product.id: 2}) for _ in range(2)]
    await both.shop.move("CANCELLED", cancelled.id)
    await both.settle()
    await both.in_products("UPDATE reservation SET state = 'HELD'")
    await both.in_products("UPDATE product SET stock = 6")
    lines = await both.reconcile()
    assert f"order {live.id} has stock that is only held; confirmed" in lines
    assert any(line.startswith(f"order {cancelled.id} is CANCELLED, but still has stock") for line in lines)
    await both.settle()
    assert await both.products.stock_of(product.id) == 8


async def test_other_products_of_a_reused_key_are_released(both: Both) -> None:
    """The key was used again while a restored product database had lost the order's reservation."""
    mug, cup = await both.products.create("Mug", stock=10), await both.products.create("Cup", stock=10)
    order, sound = await both.shop.create({mug.id: 1}), await both.shop.create({mug.id: 1})
    await both.settle()
    await both.lose_reservation(order.id)
    await both.products.reserve({cup.id: 7}, order.id)
    await both.products.confirm(order.id)
    lost = (
        f"order {order.id} ({order.number}) has no stock: its idempotency key was used for other products;"
        " NEEDS ATTENTION"
    )
    assert (await both.reconcile("--dry-run"))[:2] == [
        f'order {order.id} has stock of other products: 7 × "Cup"; to be released',
        lost,
    ]
    lines = await both.reconcile()
    assert lines[:2] == [f'order {order.id} has stock of other products: 7 × "Cup"; released', lost]
    assert lines[-1] == "orders that need attention: 1; see above"
    assert await both.products.stock_of(cup.id) == 10
    assert (await both.reconcile())[0] == lost, "for as long as it is live; it was not cancelled by anybody"
    assert status_name(await both.shop.get(order.id)) == "PLACED"
    await both.shop.move("CANCELLED", order.id)
    await both.settle()
    assert found(await both.reconcile()) == set()
    assert status_name(await both.shop.get(sound.id)) == "PLACED"


async def test_reused_key_reserves_no_stock(both: Both) -> None:
    """Neither if the order has lost its reservation, nor if its attempt expired."""
    mug, cup = await both.products.create("Mug", stock=10), await both.products.create("Cup", stock=10)
    key, dead = str(uuid4()), str(uuid4())
    order = await both.shop.create({mug.id: 1}, request_id=key)
    await both.settle()
    await both.lose_reservation(order.id)
    with refused() as error:
        await both.shop.create({cup.id: 7}, request_id=key)
    assert error.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await both.products.stock_of(cup.id) == 10

    await both.in_orders("INSERT INTO orders (id, status) VALUES (%s, 'EXPIRED')", str(derive_id("", UUID(dead))))
    with refused() as error:
        await both.shop.create({cup.id: 7}, request_id=dead)
    assert error.reason == "ORDER_EXPIRED"
    assert await both.products.stock_of(cup.id) == 10


async def test_reused_key_with_same_items_keeps_the_stock(both: Both) -> None:
    """A request with other notes is refused, and the reservation stays as it is, held or confirmed."""
    product = await both.products.create(stock=10)
    key = str(uuid4())
    await both.shop.create({product.id: 4}, request_id=key)
    for state in ("HELD", "CONFIRMED"):
        await both.in_products("UPDATE reservation SET state = %s", state)
        with refused() as error:
            await both.shop.create({product.id: 4}, request_id=key, notes="elsewhere")
        assert error.reason == "IDEMPOTENCY_KEY_REUSED"
        assert await both.products.stock_of(product.id) == 6


async def test_unexpired_holds_are_left_alone(both: Both) -> None:
    """Such a hold may be an order that is being placed."""
    product = await both.products.create(stock=10)
    await both.shop.create({product.id: 1})
    await both.settle()
    await both.products.reserve({product.id: 1})
    assert await both.reconcile() == [
        "compared: 2 reservations with stock, 1 unexpired holds, left to the service, 1 orders not cancelled"
    ]
    assert await both.products.stock_of(product.id) == 8
    await both.in_products("UPDATE reservation SET expire_time = now() - interval '1 second'")
    assert "lost orders" in found(await both.reconcile())
    assert await both.products.stock_of(product.id) == 9


async def test_busy_shop_has_no_findings(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders are placed, moved and cancelled during several runs with small pages."""
    monkeypatch.setattr(stock_module, "PAGE_SIZE", 7)
    ids = [(await both.products.create(stock=60)).id for _ in range(3)]
    running = True

    async def client(seed: int) -> None:
        dice = random.Random(seed)
        while running:
            try:
                order = await both.shop.create(dict.fromkeys(dice.sample(ids, 2), 1))
            except grpc.aio.AioRpcError as error:
                assert_sold_out(error)
                continue
            await both.shop.move(dice.choice(["PROCESSED", "CANCELLED", "CANCELLED"]), order.id)

    await both.shop.create({ids[0]: 1})  # without any order, it would refuse to begin
    clients = [asyncio.create_task(client(seed)) for seed in range(6)]
    runs = [found(await both.reconcile(*["--dry-run"][turn % 2 :])) for turn in range(6)]
    running = False
    await asyncio.gather(*clients)
    assert runs == [set()] * 6
    await both.settle()
    listed = await both.shop.orders.ListOrders(order_pb2.ListOrdersRequest(page_size=100))
    assert len(listed.orders) > 20


def assert_sold_out(error: grpc.aio.AioRpcError) -> None:
    assert refusal_of(error).reason == "INSUFFICIENT_STOCK"
