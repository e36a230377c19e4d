"""Many clients on few products, over parallel connections: nothing is oversold or lost, and nothing deadlocks."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from shop.product.v1 import stock_pb2

from runtime.errors import parse_status
from tests.support.invariants import check_stock, stock_leaks
from tests.support.locks import until_none_waits, until_waiting
from tests.support.product import ProductShop, product_shop, refusal_of, reserve_request


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(
        product_database, DATABASE_POOL_SIZE="12", STOCK_POOL_SIZE="12", DATABASE_POOL_WAITING="1000"
    ) as shop:
        yield shop


async def deadlocks(shop: ProductShop) -> int:
    """Returns how many deadlocks the database has broken, also those that a retry hides."""
    async with shop.connection() as connection:
        row = await (
            await connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        ).fetchone()
        assert row
        found: int = row[0]
        return found


async def test_concurrent_reserves_sell_only_what_is_left(shop: ProductShop) -> None:
    created = await shop.create("Steel watch", stock=7)
    responses = await asyncio.gather(*(shop.reserve({created.id: 1}) for _ in range(12)), return_exceptions=True)
    reserved = [response for response in responses if isinstance(response, stock_pb2.Reservation)]
    errors = [refusal_of(response) for response in responses if isinstance(response, grpc.aio.AioRpcError)]
    assert (len(reserved), len(errors)) == (7, 5)
    assert {(each.reason, each.message) for each in errors} == {("INSUFFICIENT_STOCK", '"Steel watch" is sold out')}
    assert await shop.stock_of(created.id) == 0
    async with shop.connection() as connection:
        await check_stock(connection)


async def test_items_in_opposite_orders_do_not_deadlock(shop: ProductShop) -> None:
    """Both reserve and release lock products in the order of their ids, whatever the order of the items."""
    ids = [(await shop.create(stock=1_000)).id for _ in range(6)]

    async def buy_and_return(seed: int) -> None:
        shuffled = random.Random(seed).sample(ids, len(ids))
        held = await shop.reserve(dict.fromkeys(shuffled, 1))
        if seed % 2:
            await shop.release(held.id)

    await asyncio.gather(*(buy_and_return(seed) for seed in range(200)))
    assert {await shop.stock_of(each) for each in ids} == {900}
    assert await deadlocks(shop) == 0
    async with shop.connection() as connection:
        await check_stock(connection)


async def test_batches_in_opposite_orders_do_not_deadlock(product_database: str) -> None:
    """Two replicas use the same products and reservations, while the stock is adjusted."""
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(product_shop(product_database)) for _ in range(2)]
        shop = shops[0]
        ids = [(await shop.create(stock=1_000)).id for _ in range(5)]
        before = await deadlocks(shop)

        async def client(seed: int) -> None:
            dice = random.Random(seed)
            stock = shops[seed % 2].stock
            for turn in range(10):
                # Clients of one turn share their ids, so each batch meets those of the others in another sequence.
                keys = [str(UUID(int=turn * 100 + number)) for number in range(20)]
                dice.shuffle(keys)
                requests = [reserve_request(dict.fromkeys(dice.sample(ids, len(ids)), 1), each) for each in keys]
                dice.shuffle(requests)
                reserved = await stock.BatchReserveStock(stock_pb2.BatchReserveStockRequest(requests=requests))
                dice.shuffle(keys)
                confirm = stock_pb2.BatchConfirmReservationsRequest(reservation_ids=keys)
                confirmed = await stock.BatchConfirmReservations(confirm)
                dice.shuffle(keys)
                release = stock_pb2.BatchReleaseReservationsRequest(reservation_ids=keys[:15])
                released = await stock.BatchReleaseReservations(release)
                for response in (reserved, confirmed, released):
                    assert all(each.HasField("reservation") for each in response.results), response

        adjusting = (shops[n % 2].adjust(ids[n % 5], -1 if n % 3 else 2) for n in range(60))
        await asyncio.gather(*(client(seed) for seed in range(8)), *adjusting)
        assert await deadlocks(shop) == before
        async with shop.connection() as connection:
            await check_stock(connection)
            assert await taken(connection, "CONFIRMED") < 8 * 10 * 20


async def test_batches_of_the_same_ids_do_not_deadlock(product_database: str) -> None:
    """No lock of a product keeps them apart: each client has its own product.

    All confirm the same holds and release the same unknown ids, each in another order.
    """
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(product_shop(product_database)) for _ in range(2)]
        shop = shops[0]
        ids = [(await shop.create(stock=10_000)).id for _ in range(6)]
        before = await deadlocks(shop)
        dice = random.Random(3)

        async def reserve(client: int, keys: list[str]) -> None:
            requests = [reserve_request({ids[client]: 1}, key) for key in dice.sample(keys, len(keys))]
            request = stock_pb2.BatchReserveStockRequest(requests=requests)
            response = await shops[client % 2].stock.BatchReserveStock(request)
            refusals = {parse_status(each.error)[1] for each in response.results if each.HasField("error")}
            assert refusals <= {"RESERVATION_MISMATCH"}

        async def confirm(client: int, keys: list[str]) -> None:
            request = stock_pb2.BatchConfirmReservationsRequest(reservation_ids=dice.sample(keys, len(keys)))
            response = await shops[client % 2].stock.BatchConfirmReservations(request)
            assert {each.reservation.state for each in response.results} == {stock_pb2.Reservation.CONFIRMED}

        async def release(client: int, keys: list[str]) -> None:
            request = stock_pb2.BatchReleaseReservationsRequest(reservation_ids=dice.sample(keys, len(keys)))
            response = await shops[client % 2].stock.BatchReleaseReservations(request)
            assert {each.reservation.state for each in response.results} == {stock_pb2.Reservation.RELEASED}

        for _ in range(15):
            held, unknown = [str(uuid4()) for _ in range(64)], [str(uuid4()) for _ in range(64)]
            for call, keys in ((reserve, held), (confirm, held), (release, unknown)):
                await asyncio.gather(*(call(client, keys) for client in range(len(ids))))
        assert await deadlocks(shop) == before
        async with shop.connection() as connection:
            await check_stock(connection)


async def taken(connection: psycopg.AsyncConnection[Any], state: str) -> int:
    row = await (
        await connection.execute("SELECT count(*) FROM reservation WHERE state = %s AND items <> '[]'", (state,))
    ).fetchone()
    assert row
    return int(row[0])


async def test_batches_sell_every_piece_exactly_once(product_database: str) -> None:
    """400 requests want one of 150 pieces, in batches at two replicas: 150 get one.

    While pieces are added, all that exist in the end are sold, and never more.
    """
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(product_shop(product_database)) for _ in range(2)]
        shop = shops[0]
        created, beside = await shop.create(stock=150), await shop.create(stock=100_000)

        async def batch(number: int) -> list[str]:
            requests = [reserve_request({beside.id: 1, created.id: 1}) for _ in range(40)]
            response = await shops[number % 2].stock.BatchReserveStock(
                stock_pb2.BatchReserveStockRequest(requests=requests)
            )
            return [parse_status(each.error)[1] if each.HasField("error") else "" for each in response.results]

        first = Counter(reason for reasons in await asyncio.gather(*map(batch, range(10))) for reason in reasons)
        assert first == {"": 150, "INSUFFICIENT_STOCK": 250}
        assert await shop.stock_of(created.id) == 0

        adjusting = (shops[n % 2].adjust(created.id, 7) for n in range(20))
        both = await asyncio.gather(*map(batch, range(10)), *adjusting)
        sold = sum(reason == "" for reasons in both if isinstance(reasons, list) for reason in reasons)
        assert sold + await shop.stock_of(created.id) == 140
        again = Counter(reason for reasons in await asyncio.gather(*map(batch, range(4))) for reason in reasons)
        assert again[""] == 140 - sold
        async with shop.connection() as connection:
            await check_stock(connection)


async def test_random_concurrent_calls_lose_no_piece(shop: ProductShop) -> None:
    """Clients reserve, retry, confirm and release shared ids concurrently, in random order."""
    ids = [(await shop.create(stock=20)).id for _ in range(3)]
    keys = [str(uuid4()) for _ in range(25)]
    outcomes: Counter[str] = Counter()

    async def client(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(25):
            key = dice.choice(keys)
            # The items follow from the key, so that a retry of it has the same ones.
            own = random.Random(key)
            items = {each: own.randint(1, 4) for each in own.sample(ids, own.randint(1, 3))}
            shuffled = dict(dice.sample(list(items.items()), len(items)))
            try:
                match dice.randrange(5):
                    case 0 | 1:
                        await shop.reserve(shuffled, key)
                    case 2:
                        await shop.confirm(key)
                    case 3:
                        await shop.release(key)
                        keys[keys.index(key) if key in keys else 0] = str(uuid4())
                    case _:
                        await shop.reserve(shuffled)
                outcomes["done"] += 1
            except grpc.aio.AioRpcError as error:
                outcomes[refusal_of(error).reason] += 1

    await asyncio.gather(*(client(seed) for seed in range(16)))
    assert set(outcomes) <= {"done", "INSUFFICIENT_STOCK", "RESERVATION_NOT_FOUND"}
    assert outcomes["done"] > 50
    assert await deadlocks(shop) == 0
    async with shop.connection() as connection:
        await check_stock(connection)


async def test_concurrent_release_and_reserve_hold_nothing(shop: ProductShop) -> None:
    """An id is released and reserved at the same time. Whichever is first, nothing stays held."""
    first, second = (await shop.create(stock=1_000)).id, (await shop.create(stock=1_000)).id
    for _ in range(60):
        key = str(uuid4())
        _, released, _ = await asyncio.gather(
            shop.reserve({second: 2, first: 1}, key), shop.release(key), shop.reserve({first: 1, second: 2}, key)
        )
        assert released.state == stock_pb2.Reservation.RELEASED
        assert (await shop.release(key)).state == stock_pb2.Reservation.RELEASED
    assert [await shop.stock_of(each) for each in (first, second)] == [1_000, 1_000]
    assert await deadlocks(shop) == 0


@pytest.mark.parametrize(("before", "after"), [(10, 3), (1, 3)])
async def test_locked_product_is_read_after_the_wait(shop: ProductShop, before: int, after: int) -> None:
    """All parts of the statement have the snapshot from before the wait.

    Stock and price must be those from after it, and the constraint must not be checked with the earlier stock.
    """
    created = await shop.create(stock=before)
    held = await shop.reserve({created.id: 1})
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
        await other.execute("UPDATE product SET stock = %s, price_micros = 42000000", (after,))
        waiting = [asyncio.create_task(shop.reserve({created.id: 2})) for _ in range(2)]
        await until_waiting(shop.conninfo, 2)
        assert not any(task.done() for task in waiting)
        await other.commit()
    responses = await asyncio.gather(*waiting, return_exceptions=True)
    reserved = [response for response in responses if isinstance(response, stock_pb2.Reservation)]
    errors = [refusal_of(response) for response in responses if isinstance(response, grpc.aio.AioRpcError)]
    assert [each.items[0].unit_price.units for each in reserved] == [42]
    assert [each.metadata["available"] for each in errors] == ["1"]
    assert await shop.stock_of(created.id) == 1

    async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
        await other.execute("UPDATE product SET stock = 0")
        adjusting = asyncio.create_task(shop.adjust(created.id, -2))
        releasing = asyncio.create_task(shop.release(held.id))
        await until_waiting(shop.conninfo, 2)
        await other.execute("UPDATE product SET stock = 50")
        await other.commit()
    await asyncio.gather(adjusting, releasing)
    assert await shop.stock_of(created.id) == 49


async def test_call_past_its_deadline_writes_nothing(shop: ProductShop) -> None:
    """Its statement is cancelled in the database, and its connection serves the next call."""
    created = await shop.create(stock=5)
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
        await other.execute("UPDATE product SET stock = stock")
        calls = [shop.stock.ReserveStock(reserve_request({created.id: 1}), timeout=0.5) for _ in range(12)]
        responses = await asyncio.gather(*calls, return_exceptions=True)
        codes = {response.code() for response in responses if isinstance(response, grpc.aio.AioRpcError)}
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert await shop.stock_of(created.id) == 5, "the connections are free again"
        await until_none_waits(shop.conninfo, 1)
        await other.rollback()
    await shop.reserve({created.id: 5})
    async with shop.connection() as connection:
        await check_stock(connection)


async def test_stock_check_finds_a_lost_piece(shop: ProductShop) -> None:
    """Other tests rely on this check."""
    created = await shop.create(stock=5)
    await shop.reserve({created.id: 2})
    async with shop.connection() as connection:
        await check_stock(connection)
        await connection.execute("UPDATE product SET stock = 2")
        assert await stock_leaks(connection) == {created.id: 1}
        await connection.execute("UPDATE reservation SET state = 'RELEASED'")
        assert await stock_leaks(connection) == {created.id: 3}
