"""Compares all orders with all reservations and carts, and changes nothing. A Repair applies what it finds.

One of the two databases was restored from a backup. The shop may run meanwhile. The comparison reads the two databases
in the order in which the shop writes them, so that work in progress is no finding: a reservation is written before its
order, and confirmed after it.

    order database restored: a reservation that is confirmed or expired, without an order → the order is lost; an order
        whose stock was released → it was cancelled after the backup
    product database restored: an order without a reservation → the reservation is lost; a hold of an order → its
        confirmation is lost; stock of a cancelled order → its release is lost; other items under the order's id → its
        key was used again while the reservation was lost
    a table of the order database restored: a cart that has the items of an order that was made of it → it is empty
"""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from order import stock as stock_module
from order.domain import Item, Status, same_items, sources
from order.jobs.ordered_carts import ComparedCart, OrderedCarts
from order.stock import ReservationState, Stock, StoredReservation
from order.store import OpenOrder, OrderStore, OrderSummary

RESERVATIONS = "reservations with stock"
OPEN_ORDERS = "orders not cancelled"
FILLED_CARTS = "carts with items"
LOST_ORDERS = "lost orders"
UNEXPIRED_HOLDS = "unexpired holds, left to the service"
PENDING_MESSAGES = "orders with a pending message, left to the relay"


class Change(StrEnum):
    """The change that repairs a finding. The values are the words of the report."""

    RELEASE = "released"
    CONFIRM = "confirmed"
    RESERVE = "reserved"
    CANCEL = "cancelled again"
    EMPTY = "emptied"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A difference between an order and its reservation, or the cart that it was made of."""

    order_id: UUID
    problem: str
    """The rest of the sentence "order {order_id} …", or "cart {cart_id} …"."""
    change: Change | None
    """None: no change repairs it, so people have to."""
    items: Sequence[Item] = ()
    """The items to release or to reserve."""
    lost_order: bool = False
    """There is no order. A tombstone has to be written before the reservation is released."""
    cart_id: UUID | None = None
    """The cart to empty."""

    @property
    def subject(self) -> str:
        """What the finding is about."""
        return f"cart {self.cart_id}" if self.cart_id else f"order {self.order_id}"


@dataclass(frozen=True)
class FirstComparison:
    """What a page of reservations and their orders shows."""

    findings: list[Finding] = field(default_factory=list)
    suspects: list[UUID] = field(default_factory=list)
    """Reservations that differ from their orders, but may have changed since they were read: read them again."""
    counts: Counter[str] = field(default_factory=Counter)


class Comparison:
    """One pass over both databases, page by page."""

    def __init__(self, orders: OrderStore, stock: Stock, carts: OrderedCarts, counts: Counter[str]) -> None:
        """Initializes the comparison. It adds the numbers of what it reads to `counts`."""
        self._orders = orders
        self._stock = stock
        self._carts = carts
        self._counts = counts

    async def findings(self) -> AsyncGenerator[Finding, None]:
        """Yields the findings of a page once it is compared. The next page is read after they are handled."""
        async for reservations in self._stock.list_taken():
            async for finding in self._page_of_reservations(reservations):
                yield finding
        after: UUID | None = None
        while orders := await self._orders.list_open(after, stock_module.PAGE_SIZE):
            for finding in await self._page_of_orders(orders):
                yield finding
            after = orders[-1].id
        after = None
        while carts := await self._carts.list(after, stock_module.PAGE_SIZE):
            if filled := sum(cart.has_items for cart in carts):
                self._counts[FILLED_CARTS] += filled
            for finding in check_carts(carts):
                yield finding
            after = carts[-1].id

    async def _page_of_reservations(self, reservations: list[StoredReservation]) -> AsyncGenerator[Finding, None]:
        """Compares reservations with their orders, which are read after the reservations."""
        self._counts[RESERVATIONS] += len(reservations)
        orders = await self._orders.get_summaries([each.id for each in reservations])
        first = compare_reservations(reservations, orders, datetime.now(UTC))
        self._counts.update(first.counts)
        for finding in first.findings:
            yield finding
        # The messages of these orders were sent before their summaries were read. A second read sees their effect.
        again = await self._stock.find(first.suspects) if first.suspects else {}
        for finding in compare_suspects(again.values(), orders):
            yield finding

    async def _page_of_orders(self, orders: list[OpenOrder]) -> list[Finding]:
        """Compares orders with their reservations, which are read after the orders."""
        self._counts[OPEN_ORDERS] += len(orders)
        reservations = await self._stock.find([order.id for order in orders])
        released = [each.id for each in reservations.values() if each.state is ReservationState.RELEASED]
        # A reservation is released after its order is cancelled. So these statuses are newer than the releases.
        statuses = await self._orders.get_statuses(released) if released else {}
        return compare_orders(orders, reservations, statuses)


def compare_reservations(
    reservations: Iterable[StoredReservation], orders: Mapping[UUID, OrderSummary], now: datetime
) -> FirstComparison:
    """Compares reservations that have stock with the orders that were read after them."""
    first = FirstComparison()
    for each in reservations:
        order = orders.get(each.id)
        if order is None:
            if each.state is ReservationState.HELD and each.expire_time > now:
                first.counts[UNEXPIRED_HOLDS] += 1
            else:
                problem = f"does not exist, but has stock: {pieces(each.items)}"
                first.findings.append(_release(each, problem, lost_order=True))
        elif not _is_dead(order) and not same_items(each.items, order.items):
            first.suspects.append(each.id)
        elif each.state is ReservationState.HELD or _is_dead(order):
            if order.pending:
                first.counts[PENDING_MESSAGES] += 1
            else:
                first.suspects.append(each.id)
    return first


def compare_suspects(reservations: Iterable[StoredReservation], orders: Mapping[UUID, OrderSummary]) -> list[Finding]:
    """Compares the reservations that were read a second time with orders that have no message to send."""
    findings: list[Finding] = []
    for each in reservations:
        order = orders[each.id]
        if each.state is ReservationState.RELEASED:
            continue
        if _is_dead(order):
            state = f"is {order.status}" if order.status else "has expired"
            findings.append(_release(each, f"{state}, but still has stock: {pieces(each.items)}"))
        elif not same_items(each.items, order.items):
            findings.append(_release(each, f"has stock of other products: {pieces(each.items)}"))
        elif each.state is ReservationState.HELD:
            problem = "has stock that is only held"
            findings.append(Finding(order_id=each.id, problem=problem, change=Change.CONFIRM))
    return findings


def compare_orders(
    orders: Iterable[OpenOrder], reservations: Mapping[UUID, StoredReservation], statuses: Mapping[UUID, Status]
) -> list[Finding]:
    """Compares orders with the reservations that were read after them.

    Args:
        orders: The orders.
        reservations: Their reservations by id, as far as they exist.
        statuses: The statuses of the orders whose reservations are released, read after these.
    """
    findings: list[Finding] = []
    for order in orders:
        reservation = reservations.get(order.id)
        if reservation is None:
            problem, change = f"has lost its reservation: {pieces(order.items)}", Change.RESERVE
        elif reservation.items and not same_items(reservation.items, order.items):
            problem, change = "has no stock: its idempotency key was used for other products", None
        elif reservation.state is ReservationState.RELEASED:
            status = statuses.get(order.id)
            if status in sources(Status.CANCELLED):
                problem, change = "was cancelled after the backup", Change.CANCEL
            elif status is not None and status is not Status.CANCELLED:
                problem, change = f"is {status}, but its stock was released", None
            else:
                continue
        else:
            continue
        numbered = f"({order.number}) {problem}"
        findings.append(Finding(order_id=order.id, problem=numbered, change=change, items=order.items))
    return findings


def check_carts(carts: Iterable[ComparedCart]) -> list[Finding]:
    """Returns the carts whose items were ordered already."""
    return [
        Finding(
            order_id=cart.order_id,
            problem=f"still has the items of order {cart.order_id} ({cart.number})",
            change=Change.EMPTY,
            cart_id=cart.id,
        )
        for cart in carts
        if cart.order_id
    ]


def pieces(items: Iterable[Item]) -> str:
    """Returns items for people, as in `2 × "Mug", 1 × "Cup"`."""
    return ", ".join(f'{item.quantity} × "{item.name}"' for item in items)


def _release(reservation: StoredReservation, problem: str, *, lost_order: bool = False) -> Finding:
    return Finding(
        order_id=reservation.id,
        problem=problem,
        change=Change.RELEASE,
        items=reservation.items,
        lost_order=lost_order,
    )


def _is_dead(order: OrderSummary) -> bool:
    """Returns whether an order should have no stock: it is cancelled, or a tombstone."""
    return order.status in (None, Status.CANCELLED)
