"""A cart is reached by its holder only. To everybody else it does not exist, and the error says nothing else."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import grpc
import pytest
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

from tests.support.callers import guarded_shop, raw_refusal, refusal
from tests.support.cart_holders import CALLS, Holder, Shop
from tests.support.eventually import eventually
from tests.support.oidc import Provider, oidc_provider
from tests.support.order import A, FakeStock, order_shop
from tests.support.product import UNKNOWN


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
async def shop(order_database: str, provider: Provider) -> AsyncIterator[Shop]:
    async with guarded_shop(order_database, provider) as running:
        yield Shop(running.shop, provider)


async def check_not_found(shop: Shop, holder: Holder, cart: cart_pb2.Cart) -> None:
    """Checks that each method answers as for an id that no cart has, to the byte, and that nothing has changed."""
    before = await shop.rows()
    for name, call in CALLS.items():
        expected = await raw_refusal(call(holder, UNKNOWN, cart.etag))
        found = await raw_refusal(call(holder, cart.id, cart.etag))
        assert "CART_NOT_FOUND" in repr(found), name
        assert repr(found).replace(cart.id, UNKNOWN) == repr(expected), name
    assert await shop.rows() == before


def test_every_method_that_names_a_cart_is_tried() -> None:
    methods = cart_pb2.DESCRIPTOR.services_by_name["CartService"].methods
    assert set(CALLS) == {each.name for each in methods if "id" in each.input_type.fields_by_name}


async def test_holders_reach_their_carts(shop: Shop) -> None:
    """Otherwise the refusals below would prove nothing."""
    for name, call in CALLS.items():
        guests, guest = await shop.guest.new()
        await call(guest, guests.id, guests.etag)
        ada = shop.customer("ada")
        hers = await ada.filled()
        await call(ada, hers.id, hers.etag)
        if name == "DeleteCart":
            await check_not_found(shop, guest, guests)
            await check_not_found(shop, ada, hers)


async def test_guests_cart_needs_its_secret(shop: Shop) -> None:
    cart, holder = await shop.guest.new()
    _, other = await shop.guest.new()
    (secret,) = [value for _, value in holder.metadata]
    await check_not_found(shop, other, cart)
    for wrong in ("", "x", secret[:-1], secret + "x", secret.upper(), secret.swapcase()):
        await check_not_found(shop, shop.guest.with_secret(wrong), cart)
    for stored in (hashlib.sha256(secret.encode()).hexdigest(), "\\x" + hashlib.sha256(secret.encode()).hexdigest()):
        await check_not_found(shop, shop.guest.with_secret(stored), cart)
    await holder.call("GetCart", id=cart.id)


async def test_guests_cart_is_not_for_tokens_without_its_secret(shop: Shop) -> None:
    cart, _ = await shop.guest.new()
    for caller in (shop.customer(), shop.staff, shop.customer().with_secret("x"), shop.staff.with_secret("x")):
        await check_not_found(shop, caller, cart)


async def test_customers_cart_needs_the_customers_token(shop: Shop) -> None:
    """No secret opens it, and staff see nobody's cart."""
    cart = await shop.customer("ada").filled()
    _, guest = await shop.guest.new()
    await shop.customer("bob").filled()
    for caller in (shop.customer("bob"), shop.customer("Ada"), shop.customer("ada "), shop.staff):
        await check_not_found(shop, caller, cart)
    for secret in ("", "ada", cart.id, cart.etag, guest.metadata[0][1]):
        for caller in (shop.guest, shop.customer("bob"), shop.staff):
            await check_not_found(shop, caller.with_secret(secret), cart)


async def test_caller_with_neither_token_nor_secret_is_not_admitted(shop: Shop) -> None:
    """Whether or not the cart exists."""
    guests, _ = await shop.guest.new()
    hers = await shop.customer().filled()
    before = await shop.rows()
    for call in CALLS.values():
        expected = await raw_refusal(call(shop.guest, UNKNOWN, guests.etag))
        assert "TOKEN_REQUIRED" in repr(expected)
        for cart in (guests, hers):
            assert await raw_refusal(call(shop.guest, cart.id, cart.etag)) == expected
    assert await shop.rows() == before


async def test_secret_that_is_sent_twice_is_refused(shop: Shop) -> None:
    """One of the two is not the client's. It is so for everybody, and for every id."""
    cart, holder = await shop.guest.new()
    secret = holder.metadata[0][1]
    hers = await shop.customer().filled()
    before = await shop.rows()
    for caller in (shop.guest, shop.customer()):
        for call in CALLS.values():
            for cart_id in (cart.id, hers.id, UNKNOWN):
                for secrets in ((secret, secret), (secret, "x"), ("x", secret)):
                    error = await refusal(call(caller.with_secret(*secrets), cart_id, cart.etag))
                    assert (error.code, error.fields) == ("INVALID_ARGUMENT", {"cart-secret": "must be sent once"})
    assert await shop.rows() == before


async def test_token_and_secret_open_either_cart(shop: Shop) -> None:
    guests, holder = await shop.guest.new()
    secret = holder.metadata[0][1]
    ada, sam = shop.customer().with_secret(secret), shop.staff.with_secret(secret)
    hers = await shop.customer().filled()
    assert (await ada.call("GetCart", id=guests.id)).id == guests.id
    assert (await ada.call("GetCart", id=hers.id)).id == hers.id
    assert (await shop.customer().with_secret("x").call("GetCart", id=hers.id)).id == hers.id
    assert (await sam.call("GetCart", id=guests.id)).id == guests.id
    await check_not_found(shop, sam, hers)


async def test_bad_token_is_refused_beside_a_good_secret(shop: Shop) -> None:
    cart, holder = await shop.guest.new()
    bad = replace(holder, metadata=(*holder.metadata, ("authorization", "Bearer x")))
    for call in CALLS.values():
        assert (await refusal(call(bad, cart.id, cart.etag))).reason == "TOKEN_INVALID"


async def test_merged_cart_is_gone(shop: Shop) -> None:
    cart, holder = await shop.guest.new()
    ada = shop.customer()
    hers = await ada.call("MergeCart", cart_id=cart.id, secret=holder.metadata[0][1])
    assert [(each.product_id, each.quantity) for each in hers.items] == [(A, 1)]
    for caller in (holder, ada.with_secret(holder.metadata[0][1]), shop.customer("bob"), shop.staff):
        await check_not_found(shop, caller, cart)


async def test_expired_cart_is_gone_at_once(shop: Shop) -> None:
    cart, holder = await shop.guest.new()
    ada = shop.customer()
    hers = await ada.filled()
    for each in (cart, hers):
        await shop.expire(each.id)
    await check_not_found(shop, holder, cart)
    await check_not_found(shop, ada, hers)
    again = await ada.call("GetMyCart")
    assert (list(again.items), again.etag != hers.etag) == ([], True)


async def _wrong(shop: Shop, cart: cart_pb2.Cart, secret: str) -> tuple[str, str]:
    return cart.id, secret[:-1]


async def _of_another(shop: Shop, cart: cart_pb2.Cart, secret: str) -> tuple[str, str]:
    _, other = await shop.guest.new()
    return cart.id, other.metadata[0][1]


async def _customers(shop: Shop, cart: cart_pb2.Cart, secret: str) -> tuple[str, str]:
    return (await shop.customer("bob").filled()).id, secret


async def _own(shop: Shop, cart: cart_pb2.Cart, secret: str) -> tuple[str, str]:
    return (await shop.customer("ada").filled()).id, secret


async def _expired(shop: Shop, cart: cart_pb2.Cart, secret: str) -> tuple[str, str]:
    await shop.expire(cart.id)
    return cart.id, secret


async def _merged(shop: Shop, cart: cart_pb2.Cart, secret: str) -> tuple[str, str]:
    await shop.customer("bob").call("MergeCart", cart_id=cart.id, secret=secret)
    return cart.id, secret


async def _deleted(shop: Shop, cart: cart_pb2.Cart, secret: str) -> tuple[str, str]:
    await shop.guest.with_secret(secret).call("DeleteCart", id=cart.id)
    return cart.id, secret


Merge = Callable[[Shop, cart_pb2.Cart, str], Awaitable[tuple[str, str]]]
"""Returns what is merged, as id and secret, from a good cart and its secret."""

MERGES: dict[str, Merge] = {
    "a wrong secret": _wrong,
    "the secret of another cart": _of_another,
    "a customer's cart": _customers,
    "the caller's own cart": _own,
    "an expired cart": _expired,
    "a cart that somebody else has merged": _merged,
    "a deleted cart": _deleted,
}


@pytest.mark.parametrize("what", MERGES)
async def test_merge_takes_only_a_guests_cart_with_its_secret(shop: Shop, what: str) -> None:
    """The secret in the header says nothing here."""
    cart, holder = await shop.guest.new()
    right = holder.metadata[0][1]
    await shop.customer("ada").call("GetMyCart")
    cart_id, secret = await MERGES[what](shop, cart, right)
    before = await shop.rows()
    for caller in (shop.customer("ada"), shop.customer("ada").with_secret(right)):
        expected = await raw_refusal(caller.call("MergeCart", cart_id=UNKNOWN, secret=secret))
        found = await raw_refusal(caller.call("MergeCart", cart_id=cart_id, secret=secret))
        assert "CART_NOT_FOUND" in repr(found)
        assert repr(found).replace(cart_id, UNKNOWN) == repr(expected)
    assert await shop.rows() == before


async def test_guest_has_no_cart_of_their_own(shop: Shop) -> None:
    cart, holder = await shop.guest.new()
    for call in (holder.call("GetMyCart"), holder.call("MergeCart", cart_id=cart.id, secret=holder.metadata[0][1])):
        assert (await refusal(call)).reason == "TOKEN_REQUIRED"


async def test_customer_has_one_cart_however_many_calls_create_it(shop: Shop) -> None:
    ada = [shop.customer("ada") for _ in range(2)]
    calls = [ada[n % 2].call("CreateCart" if n % 2 else "GetMyCart") for n in range(50)]
    found = await asyncio.gather(*calls, *(shop.customer(f"customer {n}").call("GetMyCart") for n in range(10)))
    created, others = found[:50], found[50:]
    assert not any(each.HasField("secret") for each in created if isinstance(each, cart_pb2.CreateCartResponse))
    ids = {each.cart.id if isinstance(each, cart_pb2.CreateCartResponse) else each.id for each in created}
    assert len(ids) == 1
    assert len({*ids, *(each.id for each in others)}) == 11
    async with shop.service.connection() as connection:
        rows = await connection.execute("SELECT owner FROM cart WHERE owner = 'ada'")
        assert await rows.fetchall() == [("ada",)]


async def test_expired_cart_is_renewed_once(shop: Shop) -> None:
    """Also by many calls at once: each gets the same new version."""
    ada = shop.customer()
    cart = await ada.filled()
    await shop.expire(cart.id)
    found = await asyncio.gather(*(ada.call("GetMyCart") for _ in range(20)))
    assert {(each.id, len(each.items)) for each in found} == {(cart.id, 0)}
    assert len({each.etag for each in found}) == 1


async def test_only_the_hash_of_a_secret_is_stored(shop: Shop) -> None:
    made = [await shop.guest.call("CreateCart") for _ in range(3)]
    assert len({each.secret for each in made}) == 3
    assert all(len(each.secret) >= 43 for each in made), "256 random bits"
    async with shop.service.connection() as connection:
        rows = await (await connection.execute("SELECT secret_hash, cart::text FROM cart")).fetchall()
    assert {bytes(row[0]) for row in rows} == {hashlib.sha256(each.secret.encode()).digest() for each in made}
    assert not any(each.secret in row[1] for each in made for row in rows)


async def test_flood_of_new_carts_leaves_connections_to_others(order_database: str) -> None:
    """They are made in batches, which have a queue of their own."""
    async with order_shop(order_database, FakeStock(), DATABASE_POOL_SIZE="1", DATABASE_POOL_WAITING="4") as service:
        guest = Shop(service).guest
        cart, holder = await guest.new()
        made: list[str] = []
        codes: set[str] = set()

        async def create() -> None:
            while True:
                try:
                    made.append((await guest.call("CreateCart")).secret)
                except grpc.aio.AioRpcError as error:
                    codes.add(error.code().name)

        flood = [asyncio.create_task(create()) for _ in range(20)]
        try:
            await eventually(lambda: codes)
            for _ in range(20):
                assert (await holder.call("GetCart", id=cart.id)).etag == cart.etag
        finally:
            for each in flood:
                each.cancel()
        assert codes == {"RESOURCE_EXHAUSTED"}
        assert len(made) == len(set(made)) > 0


async def test_secret_is_shown_once(shop: Shop) -> None:
    made = await shop.guest.call("CreateCart")
    holder = shop.guest.with_secret(made.secret)
    responses = [
        await holder.call("GetCart", id=made.cart.id),
        await holder.call("AddCartItem", id=made.cart.id, product_id=A, quantity=1),
        await refusal(holder.call("GetCart", id=UNKNOWN)),
    ]
    assert made.secret not in repr(responses)


async def test_order_belongs_to_whoever_checks_out(shop: Shop) -> None:
    """A guest gets a ticket, and a customer none, whoever's cart it was."""
    guests, guest = await shop.guest.new()
    theirs = await CALLS["CheckoutCart"](guest, guests.id, guests.etag)
    ticket = (("order-ticket", theirs.ticket),)
    get = order_pb2.GetOrderRequest(id=theirs.id)
    assert (await shop.service.orders.GetOrder(get, metadata=ticket)).id == theirs.id

    another, holder = await shop.guest.new()
    ada = shop.customer().with_secret(holder.metadata[0][1])
    hers = await CALLS["CheckoutCart"](ada, another.id, another.etag)
    assert not hers.HasField("ticket")
    async with shop.service.connection() as connection:
        rows = await (await connection.execute("SELECT id::text, owner FROM orders")).fetchall()
    assert dict(rows) == {theirs.id: "", hers.id: "ada"}


async def test_retry_of_a_checkout_needs_the_cart(shop: Shop) -> None:
    """Who knows the id and the etag, and even the address, gets no order and no ticket."""
    cart, holder = await shop.guest.new()
    placed = await CALLS["CheckoutCart"](holder, cart.id, cart.etag)
    again = await CALLS["CheckoutCart"](holder, cart.id, cart.etag)
    assert (again.id, bool(again.ticket)) == (placed.id, True)
    for caller in (shop.customer("eve"), shop.staff, shop.guest.with_secret("x")):
        await check_not_found(shop, caller, cart)


async def test_everybody_is_a_guest_if_no_tokens_are_verified(order_database: str, provider: Provider) -> None:
    async with order_shop(order_database, FakeStock(), CALLER_HEADER="x-user") as service:
        shop = Shop(service, provider)
        cart, holder = await shop.guest.new()
        named = replace(shop.guest, metadata=(("x-user", "ada"),))
        for caller in (shop.guest, shop.customer(), shop.staff, named, named.with_secret("x")):
            await check_not_found(shop, caller, cart)
            for call in (
                caller.call("GetMyCart"),
                caller.call("MergeCart", cart_id=cart.id, secret=holder.metadata[0][1]),
            ):
                error = await refusal(call)
                assert (error.code, error.reason) == ("FAILED_PRECONDITION", "NOT_SIGNED_IN")
            made = await caller.call("CreateCart")
            await replace(named, metadata=()).with_secret(made.secret).call("GetCart", id=made.cart.id)
        assert (await holder.call("GetCart", id=cart.id)).etag == cart.etag
        order = await CALLS["CheckoutCart"](holder, cart.id, cart.etag)
        assert not order.HasField("ticket")


async def test_shop_without_guests_has_no_guests_carts(order_database: str, provider: Provider) -> None:
    """Those of before are opened by no secret alone."""
    async with guarded_shop(order_database, provider) as running:
        cart, holder = await Shop(running.shop, provider).guest.new()
    async with guarded_shop(order_database, provider, AUTH_GUESTS="false") as closed:
        shop = Shop(closed.shop, provider)
        before = await shop.rows()
        assert (await refusal(shop.guest.call("CreateCart"))).reason == "TOKEN_REQUIRED"
        known = Holder(shop.guest.carts, holder.metadata)
        for call in CALLS.values():
            assert (await refusal(call(known, cart.id, cart.etag))).reason == "TOKEN_REQUIRED"
        assert await shop.rows() == before
        assert (await shop.customer().filled()).items[0].quantity == 2


async def test_unknown_ids_are_not_found_and_malformed_ones_are_invalid(shop: Shop) -> None:
    for cart_id in ("", "x", UNKNOWN[:-1], f"{{{UNKNOWN}}}"):
        for call in CALLS.values():
            error = await refusal(call(shop.customer(), cart_id, str(uuid4())))
            assert (error.code, set(error.fields)) == ("INVALID_ARGUMENT", {"id"})
    await check_not_found(shop, shop.customer(), cart_pb2.Cart(id=str(uuid4()), etag=str(uuid4())))
