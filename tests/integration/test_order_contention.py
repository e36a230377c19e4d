"""Many clients order few products from two replicas: exactly the stock is sold, and each key is one order."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from shop.order.v1 import order_pb2

from tests.support.eventually import eventually
from tests.support.invariants import check_stock
from tests.support.invariants_order import check_logs, settled
from tests.support.locks import until_waiting
from tests.support.order import OrderShop, order_shop, status_name
from tests.support.product import ProductShop, product_shop, refusal_of

SERIALIZABLE = "-c default_transaction_isolation=serializable"


@pytest.fixture
async def products(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database, DATABASE_POOL_WAITING="1000") as shop:
        yield shop


@pytest.fixture
async def replicas(order_database: str, products: ProductShop) -> AsyncIterator[list[OrderShop]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(order_shop(order_database, products.address, DATABASE_POOL_WAITING="1000"))
            for _ in range(2)
        ]


async def check_all(shop: OrderShop, products: ProductShop) -> None:
    async with shop.connection() as orders, products.connection() as stock:
        await eventually(lambda: settled(orders, stock), 20)
        await check_logs(orders)
        await check_stock(stock)


async def sold(shop: OrderShop) -> Counter[str]:
    """Returns the pieces of each product in orders that are not cancelled."""
    async with shop.connection() as connection:
        rows = await connection.execute(
            "SELECT product_id, sum(quantity)::bigint FROM orders CROSS JOIN jsonb_to_recordset(items)"
            " AS item (product_id text, quantity bigint) WHERE status NOT IN ('CANCELLED', 'EXPIRED') GROUP BY 1"
        )
        return Counter(dict(await rows.fetchall()))


async def test_excess_demand_sells_exactly_the_stock(replicas: list[OrderShop], products: ProductShop) -> None:
    """300 orders of one to three pieces of three products, which have 40 pieces each."""
    ids = [(await products.create(stock=40)).id for _ in range(3)]
    refused: Counter[str] = Counter()

    async def buy(seed: int) -> None:
        dice = random.Random(seed)
        items = {each: dice.randint(1, 3) for each in dice.sample(ids, dice.randint(1, 3))}
        try:
            await replicas[seed % 2].create(items)
        except grpc.aio.AioRpcError as error:
            refused[refusal_of(error).reason] += 1

    await asyncio.gather(*(buy(seed) for seed in range(300)))
    # What is left over is too little for what was asked; single pieces go to whoever comes now.
    for each in ids:
        for n in range(await products.stock_of(each)):
            await replicas[n % 2].create({each: 1})
    assert set(refused) == {"INSUFFICIENT_STOCK"}
    assert await sold(replicas[0]) == dict.fromkeys(ids, 40)
    assert [await products.stock_of(each) for each in ids] == [0, 0, 0]
    await check_all(replicas[0], products)


async def test_concurrent_cancellations_lose_no_stock(replicas: list[OrderShop], products: ProductShop) -> None:
    ids = [(await products.create(stock=15)).id for _ in range(2)]
    refused: Counter[str] = Counter()

    async def buy(seed: int) -> None:
        for step in range(6):
            shop = replicas[(seed + step) % 2]
            try:
                order = await shop.create({ids[seed % 2]: 1, ids[1 - seed % 2]: 2})
            except grpc.aio.AioRpcError as error:
                refused[refusal_of(error).reason] += 1
                continue
            if (seed + step) % 3:
                await asyncio.gather(*(each.move("CANCELLED", order.id) for each in replicas))

    await asyncio.gather(*(buy(seed) for seed in range(30)))
    assert set(refused) == {"INSUFFICIENT_STOCK"}
    await check_all(replicas[0], products)
    pieces = await sold(replicas[0])
    assert {each: await products.stock_of(each) + pieces[each] for each in ids} == dict.fromkeys(ids, 15)


async def test_one_key_is_one_order_on_all_replicas(replicas: list[OrderShop], products: ProductShop) -> None:
    product = await products.create(stock=100)
    keys = [str(uuid4()) for _ in range(10)]
    orders = await asyncio.gather(
        *(replicas[n % 2].create({product.id: 3}, request_id=key) for key in keys for n in range(20))
    )
    assert len({(order.id, order.number) for order in orders}) == 10
    assert await products.stock_of(product.id) == 70
    await check_all(replicas[0], products)


async def test_retry_of_running_create_returns_same_order(replicas: list[OrderShop], products: ProductShop) -> None:
    """The first has reserved its stock, and waits to be written."""
    product = await products.create(stock=5)
    key = str(uuid4())
    async with await psycopg.AsyncConnection.connect(replicas[0].conninfo) as other:
        await other.execute("LOCK TABLE orders IN SHARE MODE")
        calls = [asyncio.create_task(replicas[n].create({product.id: 5}, request_id=key)) for n in (0, 1)]
        await asyncio.sleep(0.5)
        assert await products.stock_of(product.id) == 0
        assert not any(call.done() for call in calls)
        await other.rollback()
    first, second = await asyncio.gather(*calls)
    assert first == second
    assert status_name(first) == "PLACED"
    await check_all(replicas[0], products)


async def test_serialization_failures_are_retried(product_database: str, order_database: str) -> None:
    """Both databases have serializable transactions, which fail if they conflict with another one."""
    strict = {
        name: make_conninfo(each, options=SERIALIZABLE)
        for name, each in (("product", product_database), ("order", order_database))
    }
    async with (
        product_shop(product_database, DATABASE_URL=strict["product"]) as products,
        order_shop(order_database, products.address, DATABASE_URL=strict["order"]) as shop,
    ):
        ids = [(await products.create(stock=100)).id for _ in range(2)]

        async def buy(seed: int) -> order_pb2.Order:
            await asyncio.sleep(seed / 100)  # at once they would be one batch
            order = await shop.create({ids[seed % 2]: 1, ids[1 - seed % 2]: 1})
            return await shop.move("CANCELLED" if seed % 2 else "PROCESSED", order.id)

        # In one process they do not meet each other often.
        async with changing(product_database, min(ids), waiting=3, times=5):
            calls = [asyncio.create_task(buy(seed)) for seed in range(60)]
        orders = await asyncio.gather(*calls)
        assert Counter(map(status_name, orders)) == {"CANCELLED": 30, "PROCESSED": 30}
        await check_all(shop, products)
        assert [await products.stock_of(each) for each in ids] == [70, 70]

        await eventually(lambda: has_rollbacks(product_database, 10))


async def test_conflicts_are_retried_until_the_deadline(product_database: str) -> None:
    """More often than after a lost connection."""
    strict = make_conninfo(product_database, options=SERIALIZABLE)
    async with product_shop(product_database, DATABASE_URL=strict, DATABASE_TIMEOUT="60") as products:
        product = await products.create(stock=5)
        async with changing(product_database, product.id, waiting=4, times=8):
            calls = [asyncio.create_task(products.reserve({product.id: 1})) for _ in range(4)]
        assert [len((await call).items) for call in calls] == [1, 1, 1, 1]
        assert await products.stock_of(product.id) == 1


@asynccontextmanager
async def changing(conninfo: str, product_id: str, waiting: int, times: int) -> AsyncIterator[None]:
    """Changes a product in transactions of its own, beside the block.

    Commits each of the `times` changes once `waiting` statements of the block wait to change the product too. The next
    change waits behind them, so none of them succeeds between two changes.
    """

    async def change(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("UPDATE product SET star = 1 WHERE id = %s", (product_id,))

    async with (
        await psycopg.AsyncConnection.connect(conninfo) as now,
        await psycopg.AsyncConnection.connect(conninfo) as then,
    ):
        await change(now)
        yield
        for _ in range(times):
            await until_waiting(conninfo, waiting)
            turn = asyncio.create_task(change(then))
            await until_waiting(conninfo, waiting + 1)
            await now.commit()
            await turn
            now, then = then, now


async def has_rollbacks(conninfo: str, number: int) -> bool:
    """Returns whether the database has rolled back more than `number` statements. It counts them ten seconds late."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        row = await (
            await connection.execute("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        ).fetchone()
        assert row
        return int(row[0]) > number


async def test_deadlock_is_retried(products: ProductShop) -> None:
    """Another transaction locks products in the opposite order. The database ends the statement of the service."""
    low, high = sorted([(await products.create(stock=5)).id for _ in range(2)])
    async with await psycopg.AsyncConnection.connect(products.conninfo) as other:
        await other.execute("UPDATE product SET star = 1 WHERE id = %s", (high,))
        reserve = asyncio.create_task(products.reserve({low: 1, high: 1}))
        await asyncio.sleep(0.3)
        await other.execute("UPDATE product SET star = 1 WHERE id = %s", (low,))
        assert not reserve.done()
        await other.commit()
    assert len((await reserve).items) == 2
    async with products.connection() as connection:
        row = await (
            await connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        ).fetchone()
        assert row
        assert row[0] >= 1
