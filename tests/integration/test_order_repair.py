"""`reconcile`: what a restored database has left inconsistent is found, told to people, and repaired, both ways."""

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
    """The kinds of findings that a summary counts."""
    summary = next(line for line in lines if line.startswith("compared: "))
    return {kind for kind in NOTHING if f" {kind}" in summary}


async def test_a_sound_shop_has_nothing_to_repair(both: Both) -> None:
    product = await both.products.create()
    await both.shop.create({product.id: 1})
    cancelled = await both.shop.create({product.id: 1})
    await both.shop.move("CANCELLED", cancelled.id)
    await both.settle()
    assert await both.reconcile("--dry-run") == ["compared: 1 reservations with stock, 1 orders not cancelled"]


async def test_orders_newer_than_a_restored_order_database_are_gone_and_free_their_stock(both: Both) -> None:
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
    assert error.what.reason == "ORDER_EXPIRED", "a late retry cannot bring it back without its stock"
    assert await both.shop.get(kept.id)


async def test_a_retry_that_comes_before_the_repair_brings_the_order_back(both: Both) -> None:
    product = await both.products.create(stock=10)
    key = str(uuid4())
    gone = await both.shop.create({product.id: 3}, request_id=key)
    await both.settle()
    await both.in_orders("DELETE FROM orders WHERE id = %s", gone.id)
    assert (await both.shop.create({product.id: 3}, request_id=key)).id == gone.id
    await both.settle()
    assert found(await both.reconcile()) == set()
    assert await both.products.stock_of(product.id) == 7


async def test_a_retry_that_is_being_written_during_the_repair_is_an_order_with_stock_or_none(both: Both) -> None:
    """Its reservation is confirmed, and its row is on its way. Row or tombstone, whichever is first, decides."""
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


async def test_an_order_that_was_cancelled_after_the_backup_is_cancelled_again(both: Both) -> None:
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


async def test_reservations_that_a_restored_product_database_lacks_are_made_again_where_stock_is_left(
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
        f'order {short.id} ({short.number}) has lost its reservation: 1 × "Mug", 5 × "Cup"; NOT RESERVED: 5 of "Cup"'
        " were asked for, but only 4 are left",
    }
    assert lines[-1] == "orders that need attention: 1; see above"
    assert await both.products.stock_of(mug.id) == 7

    await both.shop.move("CANCELLED", short.id)
    await both.settle()
    assert found(await both.reconcile()) == set()
    assert status_name(await both.shop.get(later.id)) == "PLACED"


async def test_what_a_restored_product_database_holds_is_confirmed_or_released_as_its_order_says(both: Both) -> None:
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


async def test_other_goods_under_an_orders_id_are_released_and_people_look_after_the_order(both: Both) -> None:
    """Its key was used again while a restored product database had lost its reservation."""
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


async def test_a_key_that_is_used_again_takes_no_stock(both: Both) -> None:
    """Neither for an order whose reservation was lost, nor where there never was to be one."""
    mug, cup = await both.products.create("Mug", stock=10), await both.products.create("Cup", stock=10)
    key, dead = str(uuid4()), str(uuid4())
    order = await both.shop.create({mug.id: 1}, request_id=key)
    await both.settle()
    await both.lose_reservation(order.id)
    with refused() as error:
        await both.shop.create({cup.id: 7}, request_id=key)
    assert error.what.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await both.products.stock_of(cup.id) == 10

    await both.in_orders("INSERT INTO orders (id, status) VALUES (%s, 'EXPIRED')", str(derive_id("", UUID(dead))))
    with refused() as error:
        await both.shop.create({cup.id: 7}, request_id=dead)
    assert error.what.reason == "ORDER_EXPIRED"
    assert await both.products.stock_of(cup.id) == 10


async def test_a_key_that_is_used_again_for_the_same_goods_leaves_the_order_its_stock(both: Both) -> None:
    """Another address under the same key is refused, whether the reservation is still held or confirmed."""
    product = await both.products.create(stock=10)
    key = str(uuid4())
    await both.shop.create({product.id: 4}, request_id=key)
    for state in ("HELD", "CONFIRMED"):
        await both.in_products("UPDATE reservation SET state = %s", state)
        with refused() as error:
            await both.shop.create({product.id: 4}, request_id=key, notes="elsewhere")
        assert error.what.reason == "IDEMPOTENCY_KEY_REUSED"
        assert await both.products.stock_of(product.id) == 6


async def test_holds_whose_time_is_not_over_are_left_alone(both: Both) -> None:
    """One may be an order that is being placed."""
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


async def test_beside_a_busy_shop_it_finds_nothing_and_breaks_nothing(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders are placed, moved and cancelled while it compares again and again, a few at a time."""
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
