"""Counts what becomes of the orders and the checkouts of this process."""

from collections import Counter

from order.domain import Order, Status
from runtime.errors import ApiError
from runtime.refusals import DomainError

ORDERED, REPEATED, UNAVAILABLE, OTHER = "ordered", "repeated", "unavailable", "other"
"""The outcomes of checkouts without a reason: a new order; the order of an earlier request; an error because a database
or the product service does not respond or is overloaded; any other error."""

CHECKOUT_REASONS = (
    *("CART_CHANGED", "CART_EMPTY", "CART_NOT_FOUND", "CURRENCY_MISMATCH", "DATABASE_FULL", "DATABASE_READ_ONLY"),
    *("IDEMPOTENCY_KEY_REUSED", "INSUFFICIENT_STOCK", "ORDER_EXPIRED", "PRICE_CHANGED", "PRODUCT_DELETED"),
    *("PRODUCT_NOT_FOUND", "QUERY_TIMEOUT"),
)
"""The ErrorInfo reasons of failed checkouts."""

MOVE_REASONS = ("ETAG_MISMATCH", "ILLEGAL_TRANSITION", "ORDER_NOT_FOUND")
"""The ErrorInfo reasons of refused changes of a status."""


class Outcomes:
    """Numbers since the process started. Each label that is known begins with 0."""

    def __init__(self) -> None:
        self.transitions: Counter[str] = Counter({each.value: 0 for each in Status})
        """How often an order got a status."""
        self.value_micros: Counter[str] = Counter()
        """The totals of the orders placed, by currency, in millionths of its unit."""
        self.refusals: Counter[str] = Counter(dict.fromkeys((*MOVE_REASONS, OTHER), 0))
        """Changes of a status that were refused, by reason."""
        self.checkouts: Counter[str] = Counter(
            dict.fromkeys((ORDERED, REPEATED, *CHECKOUT_REASONS, UNAVAILABLE, OTHER), 0)
        )
        """Attempts to place an order, directly or from a cart."""

    def changed(self, order: Order) -> None:
        """Counts the status that an order has just got."""
        self.transitions[order.status.value] += 1
        if order.status is Status.PLACED:
            self.checkouts[ORDERED] += 1
            self.value_micros[order.currency] += int(order.total_micros)

    def repeated(self, order: Order) -> Order:
        """Counts a checkout that returns the order of an earlier request. Returns the order."""
        self.checkouts[REPEATED] += 1
        return order

    def failed(self, error: Exception) -> None:
        """Counts a checkout that failed."""
        reason = error.reason if isinstance(error, ApiError | DomainError) else ""
        if reason in CHECKOUT_REASONS:
            self.checkouts[reason] += 1
        elif isinstance(error, ApiError) and error.is_transient:
            self.checkouts[UNAVAILABLE] += 1
        else:
            self.checkouts[OTHER] += 1

    def refused(self, error: DomainError) -> DomainError:
        """Counts a change of a status that was refused. Returns the error."""
        self.refusals[error.reason if error.reason in MOVE_REASONS else OTHER] += 1
        return error
