"""The rules of orders: transitions, ids, fingerprints and totals."""

from dataclasses import dataclass, fields, replace
from uuid import UUID

from shop.order.v1 import order_pb2

from order.domain import TRANSITIONS, Draft, Item, Line, Status, derive_id, is_final, sources, total_micros

KEY = UUID("7f3c2b1a-0000-4000-8000-000000000001")
DRAFT = Draft(
    lines=(Line(product_id=UUID(int=1), quantity=2), Line(product_id=UUID(int=2), quantity=1)),
    customer_name="Ada",
    customer_email="ada@example.com",
    customer_phone="",
    shipping_address="",
    payment_method="CARD",
    notes="",
)


def test_transitions_are_those_of_the_api() -> None:
    """PLACED → PROCESSED → DELIVERED → RECEIVED; CANCELLED from PLACED or PROCESSED."""
    assert {(a.value, b.value) for a, targets in TRANSITIONS.items() for b in targets} == {
        ("PLACED", "PROCESSED"),
        ("PROCESSED", "DELIVERED"),
        ("DELIVERED", "RECEIVED"),
        ("PLACED", "CANCELLED"),
        ("PROCESSED", "CANCELLED"),
    }
    assert [status.value for status in Status if is_final(status)] == ["RECEIVED", "CANCELLED"]
    assert sources(Status.CANCELLED) == ["PLACED", "PROCESSED"]
    assert sources(Status.PLACED) == []


def test_statuses_are_those_of_the_api() -> None:
    assert [status.value for status in Status] == order_pb2.Order.Status.keys()[1:]


def test_same_caller_and_key_have_the_same_id() -> None:
    assert derive_id("ada", KEY) == derive_id("ada", KEY)
    assert derive_id("ada", KEY) != derive_id("", KEY)
    assert derive_id("ada", KEY) != derive_id("ada", UUID(int=1))


def test_ids_without_a_key_differ() -> None:
    assert derive_id("ada", None) != derive_id("ada", None)


def test_fingerprint_ignores_only_the_sequence_of_items() -> None:
    assert DRAFT.fingerprint() == replace(DRAFT, lines=DRAFT.lines[::-1]).fingerprint()
    others = [
        replace(DRAFT, lines=DRAFT.lines[:1]),
        replace(DRAFT, lines=(replace(DRAFT.lines[0], quantity=3), DRAFT.lines[1])),
        replace(DRAFT, customer_name="", customer_phone="Ada"),
        replace(DRAFT, notes="CARD", payment_method=""),
    ]
    assert len({DRAFT.fingerprint(), *(other.fingerprint() for other in others)}) == len(others) + 1


def test_fingerprint_is_that_of_release_0_1() -> None:
    """A retry after an upgrade finds the order that the older release wrote."""
    draft = replace(DRAFT, customer_phone="1", shipping_address="Main Street 1\nTown", notes="Ring twice")
    assert draft.fingerprint().hex() == "69b302f8b84367201ac4f5c0529b0be8a7e9f8071a89d2750cdd0084dea79e4a"


def test_new_field_keeps_the_fingerprint() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(Draft):
        gift: bool = False

    later = Later(**{each.name: getattr(DRAFT, each.name) for each in fields(DRAFT)})
    assert later.fingerprint() == DRAFT.fingerprint()


def test_total_of_largest_order_is_exact() -> None:
    """50 items of 100 million pieces at a billion each: the total exceeds 64 bits."""
    item = Item(product_id="", quantity=100_000_000, name="", price_micros=10**15)
    assert total_micros([item] * 50) == 5 * 10**24
