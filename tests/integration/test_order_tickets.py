"""Guests read and follow their one order by its ticket; tickets for URLs follow only."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from shop.order.v1 import order_pb2

from tests.support.callers import GuardedShop, guarded_shop, raw_refusal, refusal
from tests.support.oidc import Provider, oidc_provider
from tests.support.order import FakeStock, order_shop
from tests.support.product import UNKNOWN
from tests.support.secret_folder import SecretFolder


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
def keys(tmp_path: Path) -> SecretFolder:
    return SecretFolder(tmp_path / "keys")


@pytest.fixture
async def guarded(order_database: str, provider: Provider, keys: SecretFolder) -> AsyncIterator[GuardedShop]:
    async with guarded_shop(order_database, provider, TICKET_KEYS=str(keys.path)) as running:
        yield running


def expired(keys: SecretFolder, order_id: str, kind: str = "order") -> str:
    claims = {"aud": kind, "sub": order_id, "exp": int(time.time()) - 1}
    return jwt.encode(claims, keys.read(), "HS256")


async def test_guest_gets_ticket_with_order_only(guarded: GuardedShop) -> None:
    key = str(uuid4())
    order = await guarded.guest().create(key)
    assert order.ticket
    guest = guarded.guest().with_ticket(order.ticket)
    again = await guarded.guest().create(key)
    assert again.id == order.id
    assert again.ticket, "a retry gets one, too: the first response may be lost"
    read = await guest.get(order.id)
    assert (read.id, read.HasField("ticket")) == (order.id, False)
    for caller in (guarded.customer("ada"), guarded.staff()):
        assert not (await caller.create()).HasField("ticket")
    assert not (await guarded.staff().process(order.id)).HasField("ticket")
    assert not any(each.HasField("ticket") for each in (await guarded.staff().page()).orders)


async def test_ticket_reads_and_follows_its_order_only(guarded: GuardedShop) -> None:
    order, other = await guarded.guest().create(), await guarded.guest().create()
    guest = guarded.guest().with_ticket(order.ticket)
    assert (await guest.first_event(order.id)).order_id == order.id
    for call in (guest.get, guest.first_event, guest.ticket):
        theirs = await raw_refusal(call(other.id))
        missing = await raw_refusal(call(UNKNOWN))
        assert theirs[0].name == "NOT_FOUND"
        assert repr(theirs).replace(other.id, UNKNOWN) == repr(missing)
    for closed in (guest.cancel(order.id), guest.ids(), guest.process(order.id)):
        assert (await refusal(closed)).reason == "TOKEN_REQUIRED"


async def test_tickets_that_are_not_accepted(guarded: GuardedShop, keys: SecretFolder) -> None:
    order = await guarded.guest().create()
    forged = jwt.encode({"aud": "order", "sub": order.id, "exp": int(time.time()) + 60}, "x" * 64, "HS256")
    for sent, reason in (
        ([expired(keys, order.id)], "TICKET_EXPIRED"),
        ([forged], "TICKET_INVALID"),
        (["x"], "TICKET_INVALID"),
        ([order.ticket, order.ticket], "TICKET_INVALID"),
        ([""], "TICKET_INVALID"),
    ):
        guest = guarded.guest().with_ticket(*sent)
        for call in (guest.get, guest.first_event, guest.ticket):
            error = await refusal(call(order.id))
            assert (error.code, error.reason) == ("UNAUTHENTICATED", reason), sent
            assert await raw_refusal(call(order.id)) == await raw_refusal(call(UNKNOWN)), (
                "it tells nothing of the order"
            )


async def test_stream_ticket_follows_only(guarded: GuardedShop) -> None:
    ada = guarded.customer("ada")
    order = await ada.create()
    made = await ada.ticket(order.id)
    assert 3_500 < made.expire_time.seconds - time.time() <= 3_600
    bearer = guarded.guest().with_ticket(made.ticket)
    assert (await bearer.first_event(order.id)).order_id == order.id
    for call in (bearer.get, bearer.ticket):
        assert (await refusal(call(order.id))).reason == "TICKET_INVALID"


async def test_owner_staff_and_guest_get_stream_tickets(guarded: GuardedShop) -> None:
    hers, guests = await guarded.customer("ada").create(), await guarded.guest().create()
    for caller, order_id in (
        (guarded.customer("ada"), hers.id),
        (guarded.staff(), hers.id),
        (guarded.staff(), guests.id),
        (guarded.guest().with_ticket(guests.ticket), guests.id),
    ):
        ticket = (await caller.ticket(order_id)).ticket
        assert await guarded.authorize(order_id, stream_ticket=ticket) == ""
    for caller in (guarded.staff(), guarded.customer("eve")):
        assert (await refusal(caller.ticket(UNKNOWN))).reason == "ORDER_NOT_FOUND"


async def test_token_or_ticket_suffices(guarded: GuardedShop, keys: SecretFolder) -> None:
    hers, guests = await guarded.customer("ada").create(), await guarded.guest().create()
    ada = guarded.customer("ada")
    assert (await ada.with_ticket(guests.ticket).get(guests.id)).id == guests.id
    assert (await ada.with_ticket(guests.ticket).get(hers.id)).id == hers.id
    assert (await ada.with_ticket(expired(keys, hers.id)).get(hers.id)).id == hers.id
    error = await refusal(ada.with_ticket(expired(keys, guests.id)).get(guests.id))
    assert error.reason == "TICKET_EXPIRED"
    late = guarded.customer("ada", ttl=-3600).with_ticket(guests.ticket)
    assert (await refusal(late.get(guests.id))).reason == "TOKEN_EXPIRED", "the token is verified in any case"


async def test_ticket_is_no_token(guarded: GuardedShop) -> None:
    order = await guarded.guest().create()
    request = order_pb2.GetOrderRequest(id=order.id)
    call = guarded.shop.orders.GetOrder(request, metadata=(("authorization", f"Bearer {order.ticket}"),))
    assert (await refusal(call)).reason == "TOKEN_INVALID"


async def test_shop_without_guests_takes_no_tickets(
    order_database: str, provider: Provider, keys: SecretFolder
) -> None:
    variables = {"TICKET_KEYS": str(keys.path)}
    async with guarded_shop(order_database, provider, **variables) as guarded:
        order = await guarded.guest().create()
    async with guarded_shop(order_database, provider, AUTH_GUESTS="false", **variables) as guarded:
        guest = guarded.guest().with_ticket(order.ticket)
        for call in (guest.create(), guest.get(order.id), guest.first_event(order.id)):
            assert (await refusal(call)).reason == "TOKEN_REQUIRED"
        error = await refusal(guarded.authorize(order.id, order_ticket=[order.ticket]))
        assert error.reason == "TOKEN_REQUIRED"
        others: list[dict[str, Any]] = [{"stream_ticket": "x"}, {"authorization": [f"Bearer {provider.token('bob')}"]}]
        for more in others:
            error = await refusal(guarded.authorize(order.id, order_ticket=[order.ticket], **more))
            assert error.reason == "TICKET_INVALID"
        customer = guarded.customer("bob").with_ticket(order.ticket)
        for refused in (customer.get(order.id), customer.first_event(order.id), customer.ticket(order.id)):
            assert (await refusal(refused)).reason == "TICKET_INVALID"
        stream = (await guarded.staff().ticket(order.id)).ticket
        assert await guarded.authorize(order.id, stream_ticket=stream) == ""


async def test_tickets_work_without_tokens(order_database: str) -> None:
    """A page need not know whether the shop verifies tokens."""
    async with order_shop(order_database, FakeStock()) as shop:
        order = await shop.create()
        assert not order.HasField("ticket")
        request = order_pb2.CreateOrderTicketRequest(id=order.id)
        assert (await shop.orders.CreateOrderTicket(request)).ticket
        nonsense = (("order-ticket", "x"), ("order-ticket", "y"))
        assert (await shop.orders.GetOrder(order_pb2.GetOrderRequest(id=order.id), metadata=nonsense)).id == order.id
        unknown = order_pb2.CreateOrderTicketRequest(id=UNKNOWN)
        assert (await refusal(shop.orders.CreateOrderTicket(unknown))).reason == "ORDER_NOT_FOUND"


async def test_sidecar_is_told_who_may_follow(guarded: GuardedShop, keys: SecretFolder) -> None:
    ada = guarded.provider.token("ada")
    staff = guarded.provider.token("sam", staff=True)
    hers, guests = await guarded.customer("ada").create(), await guarded.guest().create()
    stream = (await guarded.staff().ticket(guests.id)).ticket
    assert await guarded.authorize(hers.id, ada) == "ada"
    assert await guarded.authorize(guests.id, staff) == "sam"
    assert await guarded.authorize(guests.id, order_ticket=[guests.ticket]) == ""
    assert await guarded.authorize(guests.id, order_ticket=[stream]) == ""
    assert await guarded.authorize(guests.id, stream_ticket=stream) == ""
    assert await guarded.authorize(guests.id, ada, stream_ticket=stream) == "ada"
    refused: list[tuple[str, str, dict[str, Any]]] = [
        ("TOKEN_REQUIRED", "", {}),
        ("TOKEN_INVALID", "x", {}),
        ("TOKEN_INVALID", "", {"authorization": [f"Bearer {ada}"] * 2}),
        ("TICKET_INVALID", "", {"stream_ticket": guests.ticket}),
        ("TICKET_INVALID", "", {"order_ticket": [guests.ticket, guests.ticket]}),
        ("TICKET_EXPIRED", "", {"stream_ticket": expired(keys, guests.id, "stream")}),
        ("TICKET_EXPIRED", ada, {"stream_ticket": expired(keys, guests.id, "stream")}),
        ("ORDER_NOT_FOUND", ada, {}),
        ("ORDER_NOT_FOUND", "", {"order_ticket": [(await guarded.guest().create()).ticket]}),
    ]
    for reason, token, sent in refused:
        assert (await refusal(guarded.authorize(guests.id, token, **sent))).reason == reason, (reason, sent)
    theirs, missing = [await raw_refusal(guarded.authorize(each, ada)) for each in (guests.id, UNKNOWN)]
    assert repr(theirs).replace(guests.id, UNKNOWN) == repr(missing)
    assert "order_id" in (await refusal(guarded.authorize("x", ada))).fields
