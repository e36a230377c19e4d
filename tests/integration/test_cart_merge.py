"""MergeCart: a guest's cart becomes a part of the customer's, once, and ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from shop.cart.v1 import cart_pb2

from tests.support.callers import GuardedShop, guarded_shop, refusal
from tests.support.carts import HeldCart, guest_cart, problems, quantities
from tests.support.oidc import Provider, oidc_provider
from tests.support.order import A, B, C, FakeStock, order_shop


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
async def guarded(order_database: str, provider: Provider) -> AsyncIterator[GuardedShop]:
    async with guarded_shop(order_database, provider) as running:
        yield running


async def own_cart(guarded: GuardedShop, subject: str) -> HeldCart:
    metadata = guarded.customer(subject).metadata
    cart = await guarded.shop.carts.GetMyCart(cart_pb2.GetMyCartRequest(), metadata=metadata)
    return HeldCart(guarded.shop.carts, cart.id, metadata)


async def merge(own: HeldCart, guest: HeldCart) -> cart_pb2.Cart:
    request = cart_pb2.MergeCartRequest(cart_id=guest.id, secret=guest.secret)
    return await own.stub.MergeCart(request, metadata=own.metadata)


async def test_merge_adds_quantities_and_ends_the_guests_cart(guarded: GuardedShop) -> None:
    own, guest = await own_cart(guarded, "ada"), await guest_cart(guarded.shop.carts)
    await own.add(A, 2)
    await own.add(B)
    await guest.add(C, 4)
    old = (await guest.add(B, 5)).etag
    merged = await merge(own, guest)
    assert quantities(merged) == {A: 2, B: 6, C: 4}
    assert [each.product_id for each in merged.items] == [A, B, C]
    assert merged == await own.get()
    for call in (guest.get(), guest.add(A), guest.set(A, 1), guest.clear(), guest.delete(), guest.checkout(old)):
        assert (await refusal(call)).reason == "CART_NOT_FOUND"


async def test_repeated_merge_changes_nothing(guarded: GuardedShop) -> None:
    own, guest = await own_cart(guarded, "ada"), await guest_cart(guarded.shop.carts)
    await guest.add(A, 3)
    first, *others = await asyncio.gather(*(merge(own, guest) for _ in range(8)))
    assert quantities(first) == {A: 3}
    assert {each.etag for each in others} == {first.etag}
    await own.set(A, 1)
    assert quantities(await merge(own, guest)) == {A: 1}


async def test_merged_cart_is_not_merged_into_another_one(guarded: GuardedShop) -> None:
    ada, eve = await own_cart(guarded, "ada"), await own_cart(guarded, "eve")
    guest = await guest_cart(guarded.shop.carts)
    await guest.add(A, 3)
    merged = await asyncio.gather(merge(ada, guest), merge(eve, guest), return_exceptions=True)
    assert sum(isinstance(each, BaseException) for each in merged) == 1
    pieces = [sum(quantities(await each.get()).values()) for each in (ada, eve)]
    assert sorted(pieces) == [0, 3]


async def test_merge_needs_the_secret_of_a_guests_cart(guarded: GuardedShop) -> None:
    ada, eve = await own_cart(guarded, "ada"), await own_cart(guarded, "eve")
    guest = await guest_cart(guarded.shop.carts)
    await guest.add(A)
    for cart_id, secret in ((guest.id, "wrong"), (eve.id, guest.secret), (ada.id, "wrong"), (str(uuid4()), "wrong")):
        error = await refusal(merge(ada, HeldCart(ada.stub, cart_id, (("cart-secret", secret),))))
        assert (error.code, error.reason) == ("NOT_FOUND", "CART_NOT_FOUND")
    assert quantities(await guest.get()) == {A: 1}


async def test_capped_quantity_is_said_once(guarded: GuardedShop) -> None:
    own, guest = await own_cart(guarded, "ada"), await guest_cart(guarded.shop.carts)
    await own.add(A, 99_999_999)
    await guest.add(A, 2)
    merged = await merge(own, guest)
    assert quantities(merged) == {A: 100_000_000}
    assert "QUANTITY_CAPPED" in problems(merged)[0]
    assert "QUANTITY_CAPPED" not in problems(await merge(own, guest))[0]


async def test_too_many_items_merge_nothing(guarded: GuardedShop) -> None:
    own, guest = await own_cart(guarded, "ada"), await guest_cart(guarded.shop.carts)
    for cart in (own, guest):
        await asyncio.gather(*(cart.add(str(uuid4())) for _ in range(26)))
    error = await refusal(merge(own, guest))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CART_FULL")
    assert [len((await each.get()).items) for each in (own, guest)] == [26, 26]


async def test_merge_creates_the_customers_cart(guarded: GuardedShop) -> None:
    guest = await guest_cart(guarded.shop.carts)
    await guest.add(A)
    own = HeldCart(guest.stub, "", guarded.customer("ada").metadata)
    merged = await merge(own, guest)
    assert quantities(merged) == {A: 1}
    assert merged == await HeldCart(guest.stub, merged.id, own.metadata).get()


async def test_expired_cart_of_a_customer_lives_on_empty(guarded: GuardedShop) -> None:
    own = await own_cart(guarded, "ada")
    before = await own.add(A)
    async with guarded.shop.connection() as connection:
        await connection.execute("UPDATE cart SET expire_time = now() - interval '1 second'")
    assert (await refusal(own.get())).reason == "CART_NOT_FOUND"
    again = await own_cart(guarded, "ada")
    assert again.id == own.id
    after = await again.get()
    assert not after.items
    assert after.etag != before.etag


async def test_order_of_a_customers_cart_is_theirs(guarded: GuardedShop) -> None:
    own = await own_cart(guarded, "ada")
    order = await own.checkout((await own.add(A)).etag)
    assert not order.HasField("ticket")
    assert await guarded.customer("ada").ids() == [order.id]
    assert (await refusal(guarded.customer("eve").get(order.id))).code == "NOT_FOUND"


async def test_guests_order_has_a_ticket(guarded: GuardedShop) -> None:
    guest = await guest_cart(guarded.shop.carts)
    etag = (await guest.add(A)).etag
    order = await guest.checkout(etag)
    assert (await guarded.guest().with_ticket(order.ticket).get(order.id)).id == order.id
    again = await guest.checkout(etag)
    assert (again.id, again.HasField("ticket")) == (order.id, True)


async def test_nobody_has_a_cart_of_their_own_without_tokens(order_database: str) -> None:
    async with order_shop(order_database, FakeStock()) as shop:
        guest = await guest_cart(shop.carts)
        for call in (
            shop.carts.GetMyCart(cart_pb2.GetMyCartRequest()),
            merge(HeldCart(shop.carts, "", ()), guest),
        ):
            error = await refusal(call)
            assert (error.code, error.reason) == ("FAILED_PRECONDITION", "NOT_SIGNED_IN")
        error = await refusal(HeldCart(shop.carts, guest.id, ()).get())
        assert (error.code, error.reason) == ("NOT_FOUND", "CART_NOT_FOUND")


async def test_retry_of_a_checkout_returns_the_order_after_the_cart_has_ended(guarded: GuardedShop) -> None:
    guest = await guest_cart(guarded.shop.carts)
    etag = (await guest.add(A)).etag
    order = await guest.checkout(etag)
    signed_in = HeldCart(guest.stub, guest.id, (*guest.metadata, *guarded.customer("ada").metadata))
    again = await signed_in.checkout(etag)
    assert (again.id, again.HasField("ticket")) == (order.id, True), "the order is not Ada's, so she needs the ticket"
    await merge(await own_cart(guarded, "ada"), guest)
    assert (await guest.checkout(etag)).id == order.id
    async with guarded.shop.connection() as connection:
        await connection.execute("UPDATE cart SET expire_time = now() - interval '1 second'")
    assert (await guest.checkout(etag)).id == order.id
    stranger = HeldCart(guest.stub, guest.id, (("cart-secret", "wrong"),))
    assert (await refusal(stranger.checkout(etag))).reason == "CART_NOT_FOUND"


async def test_expired_cart_cannot_be_ordered(guarded: GuardedShop) -> None:
    guest = await guest_cart(guarded.shop.carts)
    etag = (await guest.add(A)).etag
    async with guarded.shop.connection() as connection:
        await connection.execute("UPDATE cart SET expire_time = now() - interval '1 second'")
    assert (await refusal(guest.checkout(etag))).reason == "CART_NOT_FOUND"
