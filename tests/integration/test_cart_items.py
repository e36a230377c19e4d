"""The items of a cart: what adds, sets, clears and merges leave behind, also at the same time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest
from shop.cart.v1 import cart_pb2

from tests.support.both import Both, both_shops
from tests.support.carts import guest_cart, problems, quantities
from tests.support.order import A, B, FakeStock, OrderShop, order_shop
from tests.support.product import UNKNOWN, euros, refused


@pytest.fixture
async def stock() -> FakeStock:
    return FakeStock()


@pytest.fixture
async def shop(order_database: str, stock: FakeStock) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, stock) as shop:
        yield shop


@pytest.fixture
async def both(order_database: str, product_database: str) -> AsyncIterator[Both]:
    async with both_shops(order_database, product_database) as both:
        yield both


async def test_new_cart_is_empty(shop: OrderShop) -> None:
    created = await shop.carts.CreateCart(cart_pb2.CreateCartRequest())
    assert not created.cart.items
    assert not created.cart.HasField("total")
    assert len(created.secret) >= 43
    assert created.cart.expire_time.seconds - created.cart.create_time.seconds == 2 * 86_400


async def test_adds_accumulate_in_their_sequence(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    await cart.add(B, 2)
    await cart.add(A)
    after = await cart.add(B, 3)
    assert quantities(after) == {B: 5, A: 1}
    assert [each.product_id for each in after.items] == [B, A]
    assert after.total == euros(9)
    assert after.expire_time.seconds - after.create_time.seconds == pytest.approx(30 * 86_400, abs=3_600)
    assert after == await cart.get()


async def test_concurrent_adds_lose_nothing(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    await asyncio.gather(*(cart.add(A if n % 2 else B, n) for n in range(1, 41)))
    assert quantities(await cart.get()) == {A: 400, B: 420}


async def test_add_with_the_same_request_id_adds_once(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    key = str(uuid4())
    carts = await asyncio.gather(*(cart.add(A, 2, key) for _ in range(10)))
    assert {each.items[0].quantity for each in carts} == {2}
    with refused() as refusal:
        await cart.add(A, 3, key)
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")
    assert quantities(await cart.add(A, 2, str(uuid4()))) == {A: 4}


async def test_retry_of_an_add_succeeds_at_the_limit(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    key = str(uuid4())
    await cart.add(A, 100_000_000, key)
    assert quantities(await cart.add(A, 100_000_000, key)) == {A: 100_000_000}
    with refused() as refusal:
        await cart.add(A, 1)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "QUANTITY_LIMIT")


async def test_set_is_absolute_and_zero_removes(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    await cart.add(A, 5)
    after = await cart.set(A, 2)
    assert quantities(after) == {A: 2}
    again = await cart.set(A, 2)
    assert again.etag == after.etag, "what is so already is no change"
    assert quantities(await cart.set(B, 7)) == {A: 2, B: 7}
    assert quantities(await cart.set(A, 0)) == {B: 7}
    assert quantities(await cart.set(A, 0)) == {B: 7}


async def test_etag_guards_set_clear_and_delete(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    old = (await cart.get()).etag
    await cart.add(A)
    for call in (cart.set(A, 2, old), cart.clear(old), cart.delete(old), cart.set(A, 2, "nonsense")):
        with refused() as refusal:
            await call
        assert (refusal.code, refusal.reason) == ("ABORTED", "CART_CHANGED")
    present = (await cart.get()).etag
    assert not (await cart.clear(present)).items
    await cart.delete()
    with refused() as refusal:
        await cart.get()
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "CART_NOT_FOUND")


async def test_if_match_guards_an_add_and_its_retry_succeeds(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    etag, key = (await cart.get()).etag, str(uuid4())
    guarded = replace(cart, metadata=(*cart.metadata, ("if-match", f'"{etag}"')))
    await guarded.add(A, 2, key)
    assert quantities(await guarded.add(A, 2, key)) == {A: 2}
    with refused() as refusal:
        await guarded.add(A, 2)
    assert refusal.reason == "CART_CHANGED"


async def test_cart_has_at_most_fifty_items(shop: OrderShop) -> None:
    cart = await guest_cart(shop.carts)
    products = [str(uuid4()) for _ in range(51)]
    await asyncio.gather(*(cart.add(each) for each in products[:50]))
    with refused() as refusal:
        await cart.add(products[50])
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "CART_FULL")
    assert quantities(await cart.add(products[0])) == {each: 2 if each == products[0] else 1 for each in products[:50]}


async def test_cart_without_the_product_service_is_stale(shop: OrderShop, stock: FakeStock) -> None:
    cart = await guest_cart(shop.carts)
    fresh = await cart.add(A, 2)
    assert not fresh.stale
    stock.down = True
    stale = await cart.get()
    assert stale.stale
    assert stale.total == euros(3)
    assert not stale.items[0].HasField("available")
    assert quantities(await cart.add(A)) == {A: 3}, "it is known what the cart has"
    with refused() as refusal:
        await cart.add(B)
    assert refusal.code == "UNAVAILABLE"
    assert quantities(await cart.set(A, 0)) == {}


async def test_prices_and_problems_are_those_of_the_catalogue(both: Both) -> None:
    watch = await both.products.create("Watch", price=euros(10), stock=3)
    strap = await both.products.create("Strap", price=euros(2))
    cart = await guest_cart(both.shop.carts)
    await cart.add(watch.id, 3)
    assert problems(await cart.add(strap.id)) == [[], []]
    await both.products.update(watch.id, "price", price=euros(12))
    await both.products.adjust(watch.id, -1)
    await both.products.delete(strap.id)
    seen = await cart.get()
    assert problems(seen) == [["PRICE_CHANGED", "INSUFFICIENT_STOCK"], ["PRODUCT_DELETED"]]
    item = seen.items[0]
    assert (item.unit_price, item.added_unit_price, item.available) == (euros(12), euros(10), 2)
    assert item.problems[0].message == 'the price of "Watch" has changed from 10.00 EUR to 12.00 EUR'
    assert item.problems[1].message == 'only 2 of "Watch" left'
    assert seen.total == euros(36), "without what is no longer sold"
    assert problems(await cart.set(watch.id, 2)) == [[], ["PRODUCT_DELETED"]], "the new price is accepted"
    for call in (cart.add(strap.id), cart.set(strap.id, 2)):
        with refused() as refusal:
            await call
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PRODUCT_DELETED")
    assert quantities(await cart.set(strap.id, 0)) == {watch.id: 2}


async def test_items_in_two_currencies_have_no_total(both: Both) -> None:
    euro = await both.products.create("Euro", price=euros(10))
    yen = await both.products.create("Yen", price={"currency_code": "JPY", "units": 100})
    cart = await guest_cart(both.shop.carts)
    await cart.add(euro.id)
    seen = await cart.add(yen.id)
    assert problems(seen) == [[], ["CURRENCY_MISMATCH"]]
    assert not seen.HasField("total")


async def test_unknown_product_cannot_be_added(both: Both) -> None:
    cart = await guest_cart(both.shop.carts)
    for call in (cart.add(UNKNOWN), cart.set(UNKNOWN, 1)):
        with refused() as refusal:
            await call
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "PRODUCT_NOT_FOUND")
    assert not (await cart.get()).items
