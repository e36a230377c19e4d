"""Money is whole micros inside and google.type.Money outside, without loss between them."""

import pytest
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from runtime.currencies import DECIMALS, decimal_text
from runtime.errors import ApiError
from runtime.money import MAX_PRICE_UNITS, MICROS, price_micros, set_money, total_micros
from runtime.validate import Violations


@given(st.sampled_from(sorted(DECIMALS)), st.integers(0, MAX_PRICE_UNITS))
def test_price_round_trips(currency: str, smallest: int) -> None:
    micros = smallest * MICROS // 10 ** DECIMALS[currency]
    money = money_pb2.Money()
    set_money(money, currency, micros)
    with Violations() as check:
        assert price_micros(check, "price", money) == micros


@pytest.mark.parametrize(
    ("currency", "decimals"), [("JPY", 0), ("KRW", 0), ("EUR", 2), ("USD", 2), ("MGA", 2), ("KWD", 3), ("CLF", 4)]
)
def test_price_has_no_more_decimals_than_its_currency(currency: str, decimals: int) -> None:
    smallest = 10 ** (9 - decimals)
    for nanos in (0, smallest, 1_000_000_000 - smallest):
        with Violations() as check:
            price_micros(check, "price", money_pb2.Money(currency_code=currency, units=1, nanos=nanos % 1_000_000_000))
    with pytest.raises(ApiError, match=f"price.nanos: .*{currency} has") as caught, Violations() as check:
        price_micros(check, "price", money_pb2.Money(currency_code=currency, units=1, nanos=smallest // 10))
    assert caught.value.code.name == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "currency", ["XXX", "XTS", "XAU", "XDR", "ZZZ", "BGN", "HRK", "DEM", "eur", "Eur", " EUR", "EU", ""]
)
def test_currency_outside_iso_4217_is_refused(currency: str) -> None:
    with pytest.raises(ApiError, match="must be an ISO 4217 currency code"), Violations() as check:
        price_micros(check, "price", money_pb2.Money(currency_code=currency, units=1))


@pytest.mark.parametrize(
    ("currency", "units", "nanos", "fields"),
    [
        ("", 1, 0, {"price.currency_code"}),
        ("eur", 1, 0, {"price.currency_code"}),
        ("EURO", 1, 0, {"price.currency_code"}),
        ("ÄÖÜ", 1, 0, {"price.currency_code"}),
        ("EUR", -1, 0, {"price.units"}),
        ("EUR", 1_000_000_001, 0, {"price.units"}),
        ("EUR", 0, -1_000, {"price.nanos"}),
        ("EUR", 0, 1_000_000_000, {"price.nanos"}),
        ("EUR", 0, 999, {"price.nanos"}),
        ("", -1, -1, {"price.currency_code", "price.units", "price.nanos"}),
    ],
)
def test_invalid_price_names_its_field(currency: str, units: int, nanos: int, fields: set[str]) -> None:
    with pytest.raises(ApiError) as caught, Violations() as check:
        price_micros(check, "price", money_pb2.Money(currency_code=currency, units=units, nanos=nanos))
    (bad,) = caught.value.details
    assert {violation.field for violation in bad.field_violations} == fields  # type: ignore[attr-defined]  # a BadRequest


@pytest.mark.parametrize(
    ("currency", "units", "nanos", "micros"),
    [
        ("EUR", 12, 500_000_000, 12_500_000),
        ("EUR", 0, 0, 0),
        ("EUR", 5 * 10**18, 0, 5 * 10**24),
        ("JPY", 301, 500_000_000, 301_500_000),
        ("BGN", 1, 0, 1_000_000),
    ],
)
def test_shown_total_is_accepted(currency: str, units: int, nanos: int, micros: int) -> None:
    """Even one of prices that only an older release accepted."""
    with Violations() as check:
        assert total_micros(check, "total", money_pb2.Money(currency_code=currency, units=units, nanos=nanos)) == micros


@pytest.mark.parametrize(
    ("currency", "units", "nanos", "fields"),
    [
        ("", 0, 0, {"total.currency_code"}),
        ("eur", 1, 0, {"total.currency_code"}),
        ("EURO", 1, 0, {"total.currency_code"}),
        ("ÄÖÜ", 1, 0, {"total.currency_code"}),
        ("EUR\n", 1, 0, {"total.currency_code"}),
        ("EUR", -1, 0, {"total.units"}),
        ("EUR", 0, -1, {"total.nanos"}),
        ("EUR", 0, 1_000_000_000, {"total.nanos"}),
        ("", -1, -1, {"total.currency_code", "total.units", "total.nanos"}),
    ],
)
def test_invalid_total_names_its_field(currency: str, units: int, nanos: int, fields: set[str]) -> None:
    with pytest.raises(ApiError) as caught, Violations() as check:
        total_micros(check, "total", money_pb2.Money(currency_code=currency, units=units, nanos=nanos))
    (bad,) = caught.value.details
    assert {violation.field for violation in bad.field_violations} == fields  # type: ignore[attr-defined]  # a BadRequest


@pytest.mark.parametrize(
    ("currency", "micros", "text"),
    [
        ("EUR", 12_500_000, "12.50"),
        ("EUR", 0, "0.00"),
        ("EUR", 10_000, "0.01"),
        ("JPY", 1_250_000_000, "1250"),
        ("JPY", 0, "0"),
        ("KWD", 1_125_000, "1.125"),
        ("CLF", 100, "0.0001"),
        ("EUR", 5 * 10**24, "5000000000000000000.00"),
        ("JPY", 301_500_000, "301.5"),
        ("EUR", 1_005_001, "1.005001"),
        ("BGN", 1_500_000, "1.50"),
    ],
)
def test_decimal_text_is_exact(currency: str, micros: int, text: str) -> None:
    assert decimal_text(currency, micros) == text
