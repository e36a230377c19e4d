"""Follows each cart of a round from version to version, and counts the pieces that no call accounts for.

Each version of a cart was written down, in sequence (tests/races/shop.py). Each must follow from the one before by one
call that was acknowledged with it, and by nothing else. So each piece is accounted for: a call has put it in, and it is
in the cart, in an order, or another call has removed it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from order.cart.domain import derive_order_id
from tests.races.rounds import ANY_TOTAL, Call, Items, Round


@dataclass(frozen=True)
class Version:
    """A version of a cart, and the one that it has replaced."""

    seq: int
    transaction: str
    cart: str
    old_etag: str | None
    etag: str | None
    """None if the cart was deleted."""
    old_items: Items
    items: Items
    merged: bool
    """Whether the cart was merged into another one by this change."""
    was_expired: bool


@dataclass(frozen=True)
class PlacedOrder:
    """An order of a cart, as it is in the database."""

    id: str
    cart: str
    transaction: str
    status: str
    items: Items
    cost_micros: int
    """What its items cost."""
    total_micros: int


def excess(some: Items, others: Items) -> int:
    """Returns how many pieces `some` has beyond `others`."""
    return sum(max(0, pieces - others.get(product, 0)) for product, pieces in some.items())


@dataclass
class Count:
    """What is wrong in the rounds of a pair."""

    lost: int = 0
    free: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)

    def compare(self, expected: Items, actual: Items) -> None:
        self.lost += excess(expected, actual)
        self.doubled += excess(actual, expected)


class Audit:
    """Checks the carts and orders of a round."""

    def __init__(self, race: Round, versions: Sequence[Version], orders: Sequence[PlacedOrder], count: Count) -> None:
        self._race = race
        self._versions = versions
        self._orders = orders
        self._count = count
        self._items = {(each.cart, each.etag): each.items for each in versions if each.etag}
        self._told: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in race.calls:
            if call.etag:
                self._told[call.cart, call.etag].append(call)
        self._ended = {(each.cart, each.transaction): each for each in versions if each.merged}
        self._by_transaction = {(each.cart, each.transaction): each for each in versions}
        self._ordered = {(each.cart, each.transaction) for each in orders}
        self._done: set[str] = set()
        """The keys of the requests that have made a version."""

    def run(self) -> None:
        merged: set[str] = set()
        for each in self._versions:
            if each.cart in merged:
                # Nobody reaches a cart that was merged into another one.
                self._count.lost += excess(each.items, each.old_items)
            if each.merged:
                merged.add(each.cart)
            if each.seq > self._race.start and each.old_items != each.items:
                self._check_version(each)
        for call in self._race.calls:
            if call.etag:
                self._check_response(call)
        for order in self._orders:
            self._check_order(order)
        self._check_placed()

    def _check_version(self, version: Version) -> None:
        """Compares a version with the call that has made it."""
        told = self._told.get((version.cart, version.etag or ""), [])
        if (version.cart, version.transaction) in self._ordered:
            return  # compared with its order
        if version.merged:
            self._check_merged(version)
            return
        if version.was_expired and not version.items:
            return  # deleted, or a customer's cart that begins anew
        candidates = [*told, *(each for each in self._race.unanswered if each.cart == version.cart)]
        outcomes = [(self._apply(call, version), call) for call in candidates if call.kind != "checkout"]
        if version.was_expired:
            self._count.problems.append(f"an expired cart was changed: {version}")
        if not outcomes:
            self._count.compare(version.old_items, version.items)
            return
        expected, call = min(outcomes, key=lambda each: excess(each[0], version.items) + excess(version.items, each[0]))
        self._done.add(call.key)
        self._count.compare(expected, version.items)

    def _apply(self, call: Call, version: Version) -> Items:
        """Returns the items that a call should have made of a cart."""
        items = dict(version.old_items)
        if call.kind == "merge":
            guest = self._ended.get((call.guest, version.transaction))
            for product, pieces in (guest.old_items if guest else {}).items():
                items[product] = items.get(product, 0) + pieces
        elif call.kind == "add" and call.key not in self._done:
            items[call.product] = items.get(call.product, 0) + call.quantity
        elif call.kind == "set":
            items[call.product] = call.quantity
        elif call.kind == "clear":
            items.clear()
        return {product: pieces for product, pieces in items.items() if pieces}

    def _check_merged(self, version: Version) -> None:
        """Looks for the customer's cart that has got the items of a guest's."""
        others = [each for (_, transaction), each in self._by_transaction.items() if transaction == version.transaction]
        if not any(each.cart != version.cart and each.etag != each.old_etag for each in others):
            self._count.lost += sum(version.old_items.values())

    def _check_response(self, call: Call) -> None:
        """Compares a call that has made no version, perhaps because it was a repetition, with what it was told."""
        items = self._items.get((call.cart, call.etag))
        if items != call.items:
            self._count.problems.append(f"{call} was told of a version that was {items}")
        if items is None:
            return
        match call.kind:
            case "add" if call.key not in self._done:
                self._count.lost += call.quantity
                self._done.add(call.key)
            case "set":
                self._count.compare({call.product: call.quantity}, {call.product: items.get(call.product, 0)})
            case "clear":
                self._count.doubled += sum(items.values())
            case "merge":
                if not any(guest == call.guest for guest, _ in self._ended):
                    self._count.lost += sum(pieces for pieces in self._guest_items(call.guest).values())
            case _:
                pass

    def _guest_items(self, cart: str) -> Items:
        return next(each.items for each in reversed(self._versions) if each.cart == cart)

    def _check_order(self, order: PlacedOrder) -> None:
        """Compares an order with what it has taken from its cart, and with the version that the customer saw."""
        taken = self._by_transaction.get((order.cart, order.transaction))
        removed = {each: pieces - taken.items.get(each, 0) for each, pieces in taken.old_items.items()} if taken else {}
        self._count.compare(removed, order.items)
        shown = [
            items
            for (cart, etag), items in self._items.items()
            if cart == order.cart and str(derive_order_id(UUID(cart), UUID(etag))) == order.id
        ]
        calls = [each for each in self._race.orders if each.order == order.id]
        limits = [each.expected_micros for each in calls]
        is_paid = order.cost_micros == order.total_micros
        is_accepted = not limits or ANY_TOTAL in limits or order.total_micros <= max(limits)
        if not shown:
            self._count.problems.append(f"{order} is of no version")
        if not is_paid or not is_accepted or any(excess(order.items, items) for items in shown):
            self._count.free += 1

    def _check_placed(self) -> None:
        """Compares what the clients were told about orders with the orders."""
        there = {each.id: each for each in self._orders}
        for call in self._race.orders:
            order = there.get(call.order)
            self._count.compare(call.items, order.items if order else {})
            if call.order != str(derive_order_id(UUID(call.cart), UUID(call.named_etag))):
                self._count.problems.append(f"{call} has the order of another version")
        for call in self._race.calls:
            if call.refusal in ("CART_CHANGED", "ORDER_EXPIRED") and call.kind == "checkout":
                order_id = str(derive_order_id(UUID(call.cart), UUID(call.named_etag)))
                # The client orders the same pieces once more.
                self._count.doubled += sum(there[order_id].items.values()) if order_id in there else 0
            if call.kind == "cancel" and not call.refusal:
                order = there.get(call.order)
                if order and order.status != "CANCELLED":
                    self._count.problems.append(f"{order} was cancelled")
