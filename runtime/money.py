"""Money as whole micros (millionths of a unit) inside, google.type.Money outside."""

from google.type import money_pb2

from runtime.currencies import DECIMALS
from runtime.validate import Violations

MICROS = 1_000_000
NANOS_PER_MICRO = 1_000
LARGEST_PRICE_UNITS = 1_000_000_000

_NANO_DIGITS = 9


def set_money(field: money_pb2.Money, currency: str, micros: int) -> None:
    """Writes an amount into a message's field, where it belongs: a constructor would copy it."""
    field.currency_code = currency
    field.units = micros // MICROS
    field.nanos = micros % MICROS * NANOS_PER_MICRO


def price_micros(check: Violations, field: str, money: money_pb2.Money) -> int:
    """The micros of a price; violations where it is not one: no currency of ISO 4217, negative, too large, or with more
    decimal places than its currency has."""
    decimals = DECIMALS.get(money.currency_code)
    if decimals is None:
        check.add(f"{field}.currency_code", "must be a currency of ISO 4217 in capital letters, as in EUR")
    if not 0 <= money.units <= LARGEST_PRICE_UNITS:
        check.add(f"{field}.units", f"must be from 0 to {LARGEST_PRICE_UNITS:,}")
    if not 0 <= money.nanos < MICROS * NANOS_PER_MICRO:
        check.add(f"{field}.nanos", "must be from 0 to 999,999,999")
    elif decimals is not None and money.nanos % 10 ** (_NANO_DIGITS - decimals):
        check.add(f"{field}.nanos", _too_fine(money.currency_code, decimals))
    micros: int = money.units * MICROS + money.nanos // NANOS_PER_MICRO
    return micros


def _too_fine(currency: str, decimals: int) -> str:
    if not decimals:
        return f"must be 0: {currency} has no decimal places"
    smallest = 10 ** (_NANO_DIGITS - decimals)
    return f"must be a multiple of {smallest:,}: {currency} has {decimals} decimal places"
