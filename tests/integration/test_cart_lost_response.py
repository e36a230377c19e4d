"""What a client of a cart gets if the database has written, but its response was lost."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.carts import HeldCart, guest_cart, quantities
from tests.support.locks import until_waiting
from tests.support.order import A, FakeStock, OrderShop, order_shop
from tests.support.product import refused
from tests.support.proxy import Proxy, lose_response


@pytest.fixture
async def other(order_database: str) -> AsyncIterator[OrderShop]:
    """A replica whose connections to the database work."""
    async with order_shop(order_database, FakeStock()) as shop:
        yield shop


@pytest.fixture
async def proxy(order_database: str) -> AsyncIterator[Proxy]:
    async with Proxy(int(str(conninfo_to_dict(order_database)["port"]))).running() as running:
        yield running


@pytest.fixture
async def cart(order_database: str, proxy: Proxy) -> AsyncIterator[HeldCart]:
    """A cart with a piece, reached through a replica whose database is behind the proxy."""
    conninfo = make_conninfo(order_database, port=proxy.port)
    async with order_shop(conninfo, FakeStock(), DATABASE_POOL_SIZE="1") as shop:
        cart = await guest_cart(shop.carts)
        # A statement's first run on a connection has one response more: that it is prepared.
        await cart.add(A)
        await (await guest_cart(shop.carts)).delete()
        yield cart


def through(other: OrderShop, cart: HeldCart) -> HeldCart:
    return HeldCart(other.carts, cart.id, cart.metadata)


@pytest.mark.parametrize("with_key", [True, False])
async def test_add_with_lost_response_adds_once(other: OrderShop, cart: HeldCart, proxy: Proxy, with_key: bool) -> None:
    """Without a key, the service cannot repeat the statement: it would add twice. So the client is told."""
    there = through(other, cart)

    async def added() -> bool:
        return quantities(await there.get()) == {A: 3}

    add = cart.add(A, 2, str(uuid4()) if with_key else "")
    if with_key:
        await lose_response(proxy, add, added)
    else:
        with refused() as error:
            await lose_response(proxy, add, added)
        assert error.code == "UNAVAILABLE"
    assert quantities(await there.get()) == {A: 3}


async def test_conditional_set_with_lost_response_is_never_a_conflict(
    other: OrderShop, cart: HeldCart, proxy: Proxy
) -> None:
    """A second run would conflict with the first run of the same call."""
    there = through(other, cart)

    async def is_set() -> bool:
        return quantities(await there.get()) == {A: 7}

    with refused() as error:
        await lose_response(proxy, cart.set(A, 7, (await cart.get()).etag), is_set)
    assert (error.code, error.reason) == ("UNAVAILABLE", "")


async def test_delete_with_lost_response_is_never_not_found(other: OrderShop, cart: HeldCart, proxy: Proxy) -> None:
    there = through(other, cart)

    async def is_deleted() -> bool:
        with refused() as error:
            await there.get()
        return error.reason == "CART_NOT_FOUND"

    async with other.connection() as connection:

        async def is_gone() -> bool:
            rows = await connection.execute("SELECT FROM cart WHERE id = %s", (cart.id,))
            return not await rows.fetchall()

        with refused() as error:
            await lose_response(proxy, cart.delete(), is_gone)
    assert error.code == "UNAVAILABLE"
    assert await is_deleted()


async def test_checkout_with_lost_response_returns_the_order(other: OrderShop, cart: HeldCart, proxy: Proxy) -> None:
    """The statement runs again and finds another version of the cart: that of the first run of the same call."""
    there = through(other, cart)
    etag = (await cart.get()).etag

    async def is_ordered() -> bool:
        return not quantities(await there.get())

    async with await psycopg.AsyncConnection.connect(other.conninfo) as holder:
        await holder.execute("SELECT FROM cart FOR UPDATE")
        checkout = asyncio.create_task(cart.checkout(etag))
        await until_waiting(other.conninfo, 1)
        proxy.lateness = 30
        await holder.rollback()
        await lose_response(proxy, checkout, is_ordered)
    async with other.connection() as connection:
        rows = await (await connection.execute("SELECT id::text FROM orders")).fetchall()
    assert rows == [((await checkout).id,)]
    assert (await there.checkout(etag)).id == (await checkout).id
