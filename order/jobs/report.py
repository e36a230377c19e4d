"""The report of `order reconcile`: a line for each finding, and a summary."""

from collections import Counter
from collections.abc import Callable

from order.jobs.comparison import LOST_ORDERS, OPEN_ORDERS, RESERVATIONS, Change, Finding

ORDERS_WITHOUT_STOCK = "orders without stock"

MAX_PRODUCTS = 1_000
"""Products whose released pieces are counted one by one."""


class Report:
    """Prints and counts findings."""

    def __init__(self, print_line: Callable[[str], None], *, planned: bool) -> None:
        """Initializes the report.

        Args:
            print_line: Called with each line.
            planned: Whether the changes are planned, not made.
        """
        self._print = print_line
        self._planned = planned
        self._released: Counter[tuple[str, str]] = Counter()
        """Pieces by product id and name."""
        self.counts: Counter[str] = Counter()
        """The numbers of the summary, by their names."""
        self.unrepaired = 0
        """Orders that people have to repair."""

    @property
    def changes(self) -> int:
        """The number of changes."""
        return sum(self.counts[change] for change in Change)

    @property
    def compared(self) -> int:
        """The number of orders that were compared: the reservations with stock or the orders, whichever are more."""
        return max(self.counts[RESERVATIONS], self.counts[OPEN_ORDERS])

    def add(self, finding: Finding) -> None:
        """Reports a finding: the change that repairs it, or that people have to."""
        if finding.change is None:
            self._add_unrepaired(finding, f"{finding.problem}; NEEDS ATTENTION")
            return
        if finding.lost_order:
            self.counts[LOST_ORDERS] += 1
        self.counts[finding.change] += 1
        if finding.change is Change.RELEASE:
            self._count_released(finding)
        self._print(f"{finding.subject} {finding.problem}; {self._done(finding.change)}")

    def add_unreserved(self, finding: Finding, reason: str) -> None:
        """Reports an order whose stock could not be reserved."""
        self.counts[ORDERS_WITHOUT_STOCK] += 1
        self._add_unrepaired(finding, f"{finding.problem}; NOT RESERVED: {reason}")

    def summarise(self) -> None:
        """Prints what is released of each product, and the counts."""
        for (product_id, name), number in sorted(self._released.items()):
            product = f'product {product_id} "{name}"' if product_id else "other products"
            self._print(f"stock of {product}: {number} {self._done(Change.RELEASE)}")
        self._print("compared: " + ", ".join(f"{number} {what}" for what, number in self.counts.items()))

    def _add_unrepaired(self, finding: Finding, text: str) -> None:
        self.unrepaired += 1
        self._print(f"{finding.subject} {text}")

    def _count_released(self, finding: Finding) -> None:
        for item in finding.items:
            product = (item.product_id, item.name)
            if product not in self._released and len(self._released) >= MAX_PRODUCTS:
                product = ("", "")
            self._released[product] += item.quantity

    def _done(self, change: Change) -> str:
        return f"to be {change}" if self._planned else change.value
