"""Money as whole micros (millionths of a unit) inside, google.type.Money outside."""

import re

from google.type import money_pb2

from runtime.validate import Violations

MICROS = 1_000_000
NANOS_PER_MICRO = 1_000
LARGEST_PRICE_UNITS = 1_000_000_000

_CURRENCY = re.compile(r"[A-Z]{3}")


def to_money(currency: str, micros: int) -> money_pb2.Money:
    units, rest = divmod(micros, MICROS)
    return money_pb2.Money(currency_code=currency, units=units, nanos=rest * NANOS_PER_MICRO)


def price_micros(check: Violations, field: str, money: money_pb2.Money) -> int:
    """The micros of a price; violations where it is not one: no ISO 4217 code, negative, too large or too fine."""
    if not _CURRENCY.fullmatch(money.currency_code):
        check.add(f"{field}.currency_code", "must be three capital letters (ISO 4217), as in EUR")
    if not 0 <= money.units <= LARGEST_PRICE_UNITS:
        check.add(f"{field}.units", f"must be from 0 to {LARGEST_PRICE_UNITS:,}")
    if not 0 <= money.nanos < MICROS * NANOS_PER_MICRO:
        check.add(f"{field}.nanos", "must be from 0 to 999,999,999")
    elif money.nanos % NANOS_PER_MICRO:
        check.add(f"{field}.nanos", "must not be finer than six decimal places")
    micros: int = money.units * MICROS + money.nanos // NANOS_PER_MICRO
    return micros
