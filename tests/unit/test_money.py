"""Money is whole micros inside and google.type.Money outside, without loss between them."""

import pytest
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ApiError
from runtime.money import LARGEST_PRICE_UNITS, MICROS, price_micros, to_money
from runtime.validate import Violations


@given(st.integers(0, LARGEST_PRICE_UNITS * MICROS))
def test_a_price_survives_the_way_out_and_in(micros: int) -> None:
    with Violations() as check:
        assert price_micros(check, "price", to_money("EUR", micros)) == micros


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
        ("", -1, 1, {"price.currency_code", "price.units", "price.nanos"}),
    ],
)
def test_what_is_no_price_is_named(currency: str, units: int, nanos: int, fields: set[str]) -> None:
    with pytest.raises(ApiError) as caught, Violations() as check:
        price_micros(check, "price", money_pb2.Money(currency_code=currency, units=units, nanos=nanos))
    (bad,) = caught.value.details
    assert {violation.field for violation in bad.field_violations} == fields  # type: ignore[attr-defined]  # a BadRequest
