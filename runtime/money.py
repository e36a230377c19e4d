"""Money: whole micros (millionths of a currency unit) in our code, google.type.Money in messages."""

import re

from google.type import money_pb2

from runtime.currencies import DECIMALS
from runtime.validate import Violations

MICROS = 1_000_000
NANOS_PER_MICRO = 1_000
MAX_PRICE_UNITS = 1_000_000_000

_NANO_DIGITS = 9
_NOT_A_CODE = "must be an ISO 4217 currency code in capital letters, as in EUR"
_NOT_NANOS = "must be from 0 to 999,999,999"
_is_code = re.compile("[A-Z]{3}").fullmatch


def set_money(field: money_pb2.Money, currency: str, micros: int) -> None:
    """Writes an amount into a field of a message. Passing a Money to the message's constructor would copy it."""
    field.currency_code = currency
    field.units = micros // MICROS
    field.nanos = micros % MICROS * NANOS_PER_MICRO


def micros_of(money: money_pb2.Money) -> int:
    """Returns an amount of a message in micros. What is smaller than a micro is dropped."""
    micros: int = money.units * MICROS + money.nanos // NANOS_PER_MICRO
    return micros


def price_micros(violations: Violations, field: str, money: money_pb2.Money) -> int:
    """Returns the micros of a price.

    Adds violations if its currency is not one of ISO 4217, or if its amount is negative, too large, or has more decimal
    places than the currency.

    Args:
        violations: Gets the violations.
        field: The path of the field, as in `product.price`.
        money: The value of the field.
    """
    decimals = DECIMALS.get(money.currency_code)
    if decimals is None:
        violations.add(f"{field}.currency_code", _NOT_A_CODE)
    if not 0 <= money.units <= MAX_PRICE_UNITS:
        violations.add(f"{field}.units", f"must be from 0 to {MAX_PRICE_UNITS:,}")
    if not 0 <= money.nanos < MICROS * NANOS_PER_MICRO:
        violations.add(f"{field}.nanos", _NOT_NANOS)
    elif decimals is not None and money.nanos % 10 ** (_NANO_DIGITS - decimals):
        violations.add(f"{field}.nanos", _too_fine(money.currency_code, decimals))
    return micros_of(money)


def total_micros(violations: Violations, field: str, money: money_pb2.Money) -> int:
    """Returns the micros of a total that the shop has shown. It can exceed 64 bits.

    Adds violations if its currency is no code of a currency, or if its amount is negative. Older releases accepted
    prices with more decimal places than their currency has, so a total may have more, too.

    Args:
        violations: Gets the violations.
        field: The path of the field, as in `expected_total`.
        money: The value of the field.
    """
    if not _is_code(money.currency_code):
        violations.add(f"{field}.currency_code", _NOT_A_CODE)
    if money.units < 0:
        violations.add(f"{field}.units", "must not be negative")
    if not 0 <= money.nanos < MICROS * NANOS_PER_MICRO:
        violations.add(f"{field}.nanos", _NOT_NANOS)
    return micros_of(money)


def _too_fine(currency: str, decimals: int) -> str:
    if not decimals:
        return f"must be 0: {currency} has no decimal places"
    smallest = 10 ** (_NANO_DIGITS - decimals)
    return f"must be a multiple of {smallest:,}: {currency} has {decimals} decimal places"
