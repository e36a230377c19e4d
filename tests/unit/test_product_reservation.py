"""Reservations: why stock could not be reserved, and which reservation is the same as another."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from product.reservation import (
    Item,
    LockedProduct,
    RequestedItem,
    Reservation,
    ReservationState,
    check_same_items,
    rejection,
)
from runtime.prices import Price
from runtime.refusals import DomainError

ID = UUID("123e4567-e89b-42d3-a456-426614174000")
OTHER = UUID("223e4567-e89b-42d3-a456-426614174000")
NOW = datetime(2026, 11, 23, 2, 3, 4, 567891, UTC)


def locked(product_id: UUID = ID, quantity: int = 1, stock: int = 5, currency: str = "EUR") -> LockedProduct:
    return LockedProduct(
        product_id=product_id,
        quantity=quantity,
        deleted=False,
        name="Steel watch",
        currency=currency,
        price_micros=1,
        stock=stock,
        expire_time=None,
    )


UNKNOWN = replace(locked(OTHER), name=None, currency=None, price_micros=None, stock=None)
DELETED = replace(locked(), deleted=True)
SHORT = locked(quantity=6)
DOLLARS = locked(OTHER, currency="USD")


@pytest.mark.parametrize(
    ("products", "code", "text"),
    [
        ([SHORT, DELETED, UNKNOWN], "NOT_FOUND", f"items[2].product_id: product {OTHER} not found"),
        ([SHORT, DELETED], "FAILED_PRECONDITION", '"Steel watch" is no longer sold'),
        ([SHORT, DOLLARS], "FAILED_PRECONDITION", 'insufficient stock of "Steel watch": 6 requested, 5 available'),
        (
            [locked(quantity=2, stock=1)],
            "FAILED_PRECONDITION",
            'insufficient stock of "Steel watch": 2 requested, 1 available',
        ),
        ([locked(stock=0)], "FAILED_PRECONDITION", '"Steel watch" is sold out'),
        (
            [locked(), DOLLARS],
            "FAILED_PRECONDITION",
            "the items have prices in EUR and USD; an order has one currency",
        ),
    ],
)
def test_rejection_names_the_reason(products: list[LockedProduct], code: str, text: str) -> None:
    error = rejection(products, None)
    assert error
    assert (error.kind.name, error.message) == (code, text)


def test_available_products_have_no_rejection() -> None:
    """Others of the same batch were counted before them."""
    assert rejection([locked(quantity=2, stock=2)], None) is None


@pytest.mark.parametrize(
    ("products", "reason"),
    [
        ([locked(), UNKNOWN], "PRODUCT_NOT_FOUND"),
        ([locked(), DELETED], "PRODUCT_DELETED"),
        ([locked(), SHORT], "INSUFFICIENT_STOCK"),
        ([locked(), DOLLARS], "CURRENCY_MISMATCH"),
        ([locked(quantity=2), locked(OTHER)], "PRICE_CHANGED"),
    ],
)
def test_price_is_the_last_reason(products: list[LockedProduct], reason: str) -> None:
    """A customer who accepts the price must not be told something else after that."""
    error = rejection(products, Price(currency="EUR", micros=2))
    assert error
    assert error.reason == reason


@pytest.mark.parametrize(
    ("currency", "micros", "expected", "total", "text"),
    [
        ("EUR", 25_000_000, ("EUR", 25_000_000), None, ""),
        ("EUR", 25_000_000, ("EUR", 26_000_000), None, ""),
        (
            *("EUR", 25_000_000, ("EUR", 24_990_000), ("24.99", "25.00", "EUR", "EUR")),
            "the items now cost 25.00 EUR, not the expected 24.99 EUR",
        ),
        (
            *("JPY", 1_250_000_000, ("JPY", 0), ("0", "1250", "JPY", "JPY")),
            "the items now cost 1250 JPY, not the expected 0 JPY",
        ),
        (
            *("JPY", 25_000_000, ("EUR", 99_000_000), ("99.00", "25", "EUR", "JPY")),
            "the items now cost 25 JPY, not the expected 99.00 EUR",
        ),
    ],
)
def test_total_is_compared_with_the_expected_one(
    currency: str, micros: int, expected: tuple[str, int], total: tuple[str, ...] | None, text: str
) -> None:
    product = replace(locked(quantity=5, currency=currency), price_micros=micros // 5)
    error = rejection([product], Price(currency=expected[0], micros=expected[1]))
    if total is None:
        assert error is None
        return
    assert error
    assert (error.kind.name, error.reason, error.message) == ("FAILED_PRECONDITION", "PRICE_CHANGED", text)
    names = ("expected_total", "total", "expected_currency", "currency")
    assert error.metadata == dict(zip(names, total, strict=True))


def test_same_items_may_come_in_any_order() -> None:
    items = tuple(Item(product_id=each, quantity=2, name="", currency="EUR", price_micros=1) for each in (ID, OTHER))
    reservation = Reservation(id=ID, state=ReservationState.HELD, items=items, expire_time=NOW)
    assert check_same_items(reservation, [RequestedItem(OTHER, 2), RequestedItem(ID, 2)]) == reservation
    with pytest.raises(DomainError):
        check_same_items(reservation, [RequestedItem(OTHER, 2)])
    released = replace(reservation, state=ReservationState.RELEASED, items=())
    assert check_same_items(released, [RequestedItem(OTHER, 2)]) == released
