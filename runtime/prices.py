"""Amounts of money, as domains compare them. Knows no messages."""

from dataclasses import dataclass

from runtime.currencies import decimal_text
from runtime.refusals import DomainError, ErrorKind


@dataclass(frozen=True)
class Price:
    """An amount of money."""

    currency: str
    """A code of ISO 4217."""
    micros: int
    """Millionths of the currency's unit. It can exceed 64 bits."""

    def __str__(self) -> str:
        """Returns it for people, as in `12.50 EUR`."""
        return f"{decimal_text(self.currency, self.micros)} {self.currency}"

    def exceeds(self, expected: "Price") -> bool:
        """Returns whether it is more than a customer expects, or in another currency."""
        return self.currency != expected.currency or self.micros > expected.micros


def price_changed(expected: Price, total: Price) -> DomainError:
    """Returns the error for items that cost more than the customer saw, or have another currency."""
    return DomainError(
        ErrorKind.FAILED_PRECONDITION,
        f"the items now cost {total}, not the expected {expected}",
        reason="PRICE_CHANGED",
        metadata={
            "expected_total": decimal_text(expected.currency, expected.micros),
            "total": decimal_text(total.currency, total.micros),
            "expected_currency": expected.currency,
            "currency": total.currency,
        },
    )
