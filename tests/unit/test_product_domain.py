"""The catalogue's rules: codes made from names, etags, orders, search words, and why stock cannot be had."""

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from uuid import UUID

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop.product.v1 import product_pb2

from product import domain
from product.domain import Content, Product
from product.parse import _SKU, _SLUG
from product.reservation import Candidate, Item, Reservation, Wanted, check_same, refusal
from runtime.errors import ApiError
from tests.support.requests import max_length

ID = UUID("123e4567-e89b-42d3-a456-426614174000")
OTHER = UUID("223e4567-e89b-42d3-a456-426614174000")
NOW = datetime(2026, 11, 23, 2, 3, 4, 567891, UTC)
PRODUCT = Product(
    id=ID,
    name="Steel watch",
    slug="steel-watch",
    sku="STE-WAT",
    variant="",
    description="",
    category="",
    currency="EUR",
    price_micros=12_500_000,
    stock=10,
    star=4.5,
    image_uri="",
    revision=7,
    create_time=NOW,
    update_time=NOW,
    delete_time=None,
)


@pytest.mark.parametrize(
    ("name", "slug", "sku"),
    [
        ("Steel watch", "steel-watch", "STE-WAT"),
        ("  --Steel__watch!! ", "steel-watch", "STE-WAT"),
        ("Café Crème №5", "cafe-creme-no5", "CAF-CRE-NO5"),
        ("Straße nach Łódź, Ærø", "strasse-nach-lodz-aero", "STR-NAC-LOD-AER"),
        ("Часы", "product", "PRO"),
        ("Часы 41", "41", "41"),
        ("a b c d e", "a-b-c-d-e", "A-B-C-D"),
        ("x" * 200, "x" * 100, "XXX"),
    ],
)
def test_codes_are_made_from_names(name: str, slug: str, sku: str) -> None:
    assert (domain.slug_of(name), domain.sku_of(name)) == (slug, sku)


@given(st.text(min_size=1, max_size=200))
def test_any_name_makes_codes_that_are_valid_and_stay_so_with_a_suffix(name: str) -> None:
    content = Content(name=name).complete({"slug", "sku"})
    for _ in range(3):
        assert _SLUG.fullmatch(content.slug)
        assert len(content.slug) <= domain.SLUG_LENGTH
        assert _SKU.fullmatch(content.sku)
        assert len(content.sku) <= max_length(product_pb2.Product, "sku")
        content = content.instead("slug", ID).instead("sku", ID)


def test_a_code_that_is_taken_gets_a_suffix_and_then_a_longer_one() -> None:
    content = Content(name="Steel watch").complete({"slug", "sku"})
    once = content.instead("slug", ID)
    assert (once.slug, once.sku) == ("steel-watch-123e45", "STE-WAT")
    assert once.instead("slug", ID).slug == "steel-watch-123e4567e89b"


def test_a_code_that_the_client_chose_is_never_another() -> None:
    content = Content(name="Steel watch", slug="mine").complete({"slug", "sku"})
    with pytest.raises(ApiError) as caught:
        content.instead("slug", ID)
    assert caught.value.code == grpc.StatusCode.ALREADY_EXISTS
    assert content.instead("sku", ID).slug == "mine"


@pytest.mark.parametrize("order_by", ["create_time", "name", "price", "star"])
def test_the_place_in_a_list_survives_its_token_exactly(order_by: str) -> None:
    """To the microsecond: a key that is rounded skips rows or shows them twice."""
    order = domain.order_of(f"  {order_by}   desc ")
    keys = order.keys_of(PRODUCT)
    assert tuple(map(type, keys)) == order.key_types
    expected = {"create_time": NOW, "name": "Steel watch", "price": 12_500_000, "star": 4.5}[order_by]
    assert order.position(keys) == (expected, ID)


@pytest.mark.parametrize(
    ("order_by", "text"),
    [
        ("", "create_time desc"),
        ("createTime", "create_time"),
        ("createTime desc", "create_time desc"),
        ("price DESC", "price desc"),
        ("  price\tDesc ", "price desc"),
        ("name asc", "name"),
        ("name ASC", "name"),
    ],
)
def test_order_by_is_read_as_sql_and_rest_write_it(order_by: str, text: str) -> None:
    assert domain.order_of(order_by).text == text


@pytest.mark.parametrize(
    "order_by",
    ["create_Time", "CREATETIME", "NAME", "name desc asc", "name,price", "-name", "desc"],
)
def test_order_by_of_no_field_is_refused(order_by: str) -> None:
    with pytest.raises(ApiError, match="order_by: must be one of"):
        domain.order_of(order_by)


CONTENT = Content(
    name="Steel watch",
    slug="steel-watch",
    sku="W-41",
    variant="black, 41 mm",
    description="Two lines,\nand 100 % steel.",
    category="Café",
    currency="EUR",
    price_micros=12_500_000,
    star=4.5,
    image_uri="/watch.png",
    made=frozenset({"slug"}),
)


def test_fingerprint_of_a_product_is_that_of_release_0_1() -> None:
    """A retry of before an upgrade meets what the older release wrote."""
    assert CONTENT.fingerprint(10).hex() == "db1bc1a1166d0ab84a683dff5b768e662b643aebe00c5609116b040e835dd217"
    small = Content(name="Steel watch", currency="EUR").complete({"slug", "sku"})
    assert small.fingerprint(0).hex() == "b18bfa2aa949793072c3e1d6d95bbdb51ef3f3d1384f34bad56de32716dc8ead"


def test_new_field_changes_no_fingerprint() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(Content):
        colour: str = ""

    later = Later(**{each.name: getattr(CONTENT, each.name) for each in fields(CONTENT)})
    assert later.fingerprint(10) == CONTENT.fingerprint(10)


def test_stock_above_the_limit_can_be_lowered() -> None:
    """What orders give back may be on top of it."""
    full = replace(PRODUCT, stock=domain.LARGEST_STOCK + 10)
    assert domain.check_adjustment(full, ID, -5, None) == full
    with pytest.raises(ApiError, match="cannot have more than 100,000,000"):
        domain.check_adjustment(full, ID, 1, None)


def test_words_become_patterns_the_longest_first() -> None:
    """Apart are those of which the index of trigrams knows nothing."""
    assert domain.patterns("of Gold  of 50%_\\ golden") == (["%golden%", "%Gold%"], ["%50\\%\\_\\\\%", "%of%"])
    assert domain.patterns("a-b-c gw-0815 größ 手机 x_yz") == (
        ["%gw-0815%", "%größ%"],
        ["%a-b-c%", "%x\\_yz%", "%手机%"],
    )
    assert domain.patterns(" \t\n") == ([], [])


def test_the_retry_of_a_conditional_delete_is_no_conflict() -> None:
    deleted = replace(PRODUCT, delete_time=NOW)
    assert domain.check_delete(deleted, ID, 6) == deleted
    for product, revision in ((deleted, 5), (PRODUCT, 6)):
        with pytest.raises(ApiError) as caught:
            domain.check_delete(product, ID, revision)
        assert caught.value.code == grpc.StatusCode.ABORTED


def candidate(product_id: UUID = ID, quantity: int = 1, stock: int = 5, currency: str = "EUR") -> Candidate:
    return Candidate(
        product_id=product_id,
        quantity=quantity,
        deleted=False,
        name="Steel watch",
        currency=currency,
        price_micros=1,
        stock=stock,
        expire_time=None,
    )


UNKNOWN = replace(candidate(OTHER), name=None, currency=None, price_micros=None, stock=None)
DELETED = replace(candidate(), deleted=True)
SHORT = candidate(quantity=6)
DOLLARS = candidate(OTHER, currency="USD")
ONE_LEFT = '2 of "Steel watch" were asked for, but only 1 is left'


@pytest.mark.parametrize(
    ("candidates", "code", "text"),
    [
        ([SHORT, DELETED, UNKNOWN], "NOT_FOUND", f"items[2].product_id: there is no product {OTHER}"),
        ([SHORT, DELETED], "FAILED_PRECONDITION", '"Steel watch" is no longer sold'),
        ([SHORT, DOLLARS], "FAILED_PRECONDITION", '6 of "Steel watch" were asked for, but only 5 are left'),
        (
            [candidate(quantity=2, stock=1)],
            "FAILED_PRECONDITION",
            '2 of "Steel watch" were asked for, but only 1 is left',
        ),
        ([candidate(stock=0)], "FAILED_PRECONDITION", '"Steel watch" is sold out'),
        (
            [candidate(), DOLLARS],
            "FAILED_PRECONDITION",
            "the items have prices in EUR and USD; an order has one currency",
        ),
    ],
)
def test_a_refusal_says_why(candidates: list[Candidate], code: str, text: str) -> None:
    error = refusal(candidates)
    assert error
    assert (error.code.name, error.text) == (code, text)


def test_candidates_that_can_be_had_are_no_refusal() -> None:
    """Others of their batch were counted before them."""
    assert refusal([candidate(quantity=2, stock=2)]) is None


def test_a_reservation_is_the_same_with_its_items_in_any_order() -> None:
    items = tuple(Item(product_id=each, quantity=2, name="", currency="EUR", price_micros=1) for each in (ID, OTHER))
    reservation = Reservation(id=ID, state="HELD", items=items, expire_time=NOW)
    assert check_same(reservation, [Wanted(OTHER, 2), Wanted(ID, 2)]) == reservation
    with pytest.raises(ApiError):
        check_same(reservation, [Wanted(OTHER, 2)])
    released = replace(reservation, state="RELEASED", items=())
    assert check_same(released, [Wanted(OTHER, 2)]) == released
