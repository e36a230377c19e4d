"""What a cart shows, whose it is, and which order it becomes."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from order.cart.domain import Cart, CartItem, Holder, derive_order_id, hash_secret, new_secret, view
from order.domain import Offer
from runtime.prices import Price

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MUG, CUP = UUID(int=1), UUID(int=2)


def item(product: UUID, quantity: int = 1, micros: int = 2_000_000, currency: str = "EUR") -> CartItem:
    return CartItem(product_id=str(product), quantity=quantity, name="Old", currency=currency, price_micros=micros)


def cart(*items: CartItem, owner: str = "", secret: str = "") -> Cart:
    return Cart(
        id=UUID(int=9),
        owner=owner,
        secret_hash=hash_secret(secret) if secret else None,
        etag=UUID(int=8),
        items=list(items),
        create_time=NOW,
        update_time=NOW,
        expire_time=NOW,
    )


def offer(micros: int = 2_000_000, available: int = 10, currency: str = "EUR", *, deleted: bool = False) -> Offer:
    return Offer("New", Price(currency, micros), available, deleted)


def reasons(*items: CartItem, offers: dict[UUID, Offer] | None) -> list[list[str]]:
    return [[problem.reason for problem in each.problems] for each in view(cart(*items), offers).items]


def test_order_id_is_the_same_in_every_release() -> None:
    assert derive_order_id(UUID(int=1), UUID(int=2)) == UUID("e6fbb694-6cba-55b7-bf78-53fba8e83e3b")


def test_order_id_depends_on_cart_and_version() -> None:
    ids = {derive_order_id(UUID(int=a), UUID(int=b)) for a in range(3) for b in range(3)}
    assert len(ids) == 9


def test_secrets_are_long_and_differ() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(each) == 43 for each in secrets)


@pytest.mark.parametrize(
    ("holder", "held"),
    [
        (Holder(), False),
        (Holder("", hash_secret("right")), True),
        (Holder("ada", hash_secret("right")), True),
        (Holder("", hash_secret("wrong")), False),
        (Holder("ada"), False),
    ],
)
def test_guests_cart_is_held_by_its_secret(holder: Holder, held: bool) -> None:
    assert cart(secret="right").is_held_by(holder) is held


@pytest.mark.parametrize(
    ("holder", "held"), [(Holder(), False), (Holder("ada"), True), (Holder("eve"), False), (Holder("", b""), False)]
)
def test_customers_cart_is_held_by_its_owner(holder: Holder, held: bool) -> None:
    assert cart(owner="ada").is_held_by(holder) is held


def test_items_show_what_the_catalogue_says_now() -> None:
    shown = view(cart(item(MUG, 3)), {MUG: offer()})
    assert (shown.items[0].name, shown.items[0].available, shown.total) == ("New", 10, Price("EUR", 6_000_000))
    assert not shown.stale


def test_problems_of_items() -> None:
    assert reasons(item(MUG), offers={MUG: offer()}) == [[]]
    assert reasons(item(MUG), offers={MUG: offer(1)}) == [["PRICE_CHANGED"]]
    assert reasons(item(MUG), offers={MUG: offer(currency="USD")}) == [["PRICE_CHANGED"]]
    assert reasons(item(MUG, 11), offers={MUG: offer(3, 10)}) == [["PRICE_CHANGED", "INSUFFICIENT_STOCK"]]
    assert reasons(item(MUG), offers={MUG: offer(3, deleted=True)}) == [["PRODUCT_DELETED"]]
    assert reasons(item(MUG), offers={}) == [["PRODUCT_DELETED"]], "it was lost with a database"


def test_deleted_product_is_neither_in_the_total_nor_in_the_comparison_of_currencies() -> None:
    shown = view(cart(item(MUG, currency="USD"), item(CUP)), {MUG: offer(currency="USD", deleted=True), CUP: offer()})
    assert shown.total == Price("EUR", 2_000_000)
    assert view(cart(item(MUG)), {MUG: offer(deleted=True)}).total is None


def test_mixed_currencies_have_no_total() -> None:
    items = item(MUG), item(CUP, currency="JPY")
    offers = {MUG: offer(), CUP: offer(currency="JPY")}
    assert reasons(*items, offers=offers) == [[], ["CURRENCY_MISMATCH"]]
    assert view(cart(*items), offers).total is None


def test_stale_cart_shows_what_is_known() -> None:
    shown = view(cart(item(MUG, 2)), None)
    assert (shown.stale, shown.items[0].available, shown.items[0].name) == (True, None, "Old")
    assert shown.total == Price("EUR", 4_000_000)


def test_capped_item_is_said() -> None:
    shown = view(cart(item(MUG)), {MUG: offer()}, [str(MUG)])
    assert [each.reason for each in shown.items[0].problems] == ["QUANTITY_CAPPED"]
    assert not view(replace(shown.cart), {MUG: offer()}).items[0].problems
