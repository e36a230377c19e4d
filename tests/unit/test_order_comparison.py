"""What a comparison of orders with reservations finds, without the two databases."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from order.domain import Item, Status
from order.jobs.comparison import (
    PENDING_MESSAGES,
    UNEXPIRED_HOLDS,
    Change,
    compare_orders,
    compare_reservations,
    compare_suspects,
)
from order.stock import ReservationState, StoredReservation
from order.store import OpenOrder, OrderSummary

ID = UUID(int=1)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
MUGS = [Item(product_id="m", quantity=2, name="Mug", price_micros=1)]
CUPS = [Item(product_id="c", quantity=1, name="Cup", price_micros=1)]
HELD, CONFIRMED, RELEASED = ReservationState


def reservation(
    state: ReservationState = CONFIRMED, items: list[Item] = MUGS, *, expired: bool = True
) -> StoredReservation:
    expire_time = NOW + timedelta(seconds=-1 if expired else 1)
    return StoredReservation(state, "EUR", items, id=ID, expire_time=expire_time)


def summary(status: Status | None = Status.PLACED, *, pending: bool = False) -> OrderSummary:
    return OrderSummary(id=ID, status=status, items=MUGS if status else [], pending=pending)


@pytest.mark.parametrize("found", [reservation(), reservation(HELD)])
def test_reservation_without_order_is_released(found: StoredReservation) -> None:
    look = compare_reservations([found], {}, NOW)
    (finding,) = look.findings
    assert (finding.change, finding.items, finding.lost_order) == (Change.RELEASE, MUGS, True)
    assert finding.problem == 'does not exist, but has stock: 2 × "Mug"'
    assert not look.suspects


def test_unexpired_hold_is_left_alone() -> None:
    look = compare_reservations([reservation(HELD, expired=False)], {}, NOW)
    assert (look.findings, look.suspects, look.counts) == ([], [], {UNEXPIRED_HOLDS: 1})


def test_confirmed_order_is_no_finding() -> None:
    look = compare_reservations([reservation()], {ID: summary()}, NOW)
    assert (look.findings, look.suspects, look.counts) == ([], [], {})


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (reservation(HELD), summary()),
        (reservation(), summary(Status.CANCELLED)),
        (reservation(), summary(None)),
        (reservation(items=CUPS), summary()),
    ],
)
def test_difference_is_read_twice_first(found: StoredReservation, order: OrderSummary) -> None:
    look = compare_reservations([found], {ID: order}, NOW)
    assert (look.findings, look.suspects) == ([], [ID])


@pytest.mark.parametrize(
    ("found", "order"),
    [(reservation(HELD), summary(pending=True)), (reservation(), summary(Status.CANCELLED, pending=True))],
)
def test_pending_message_is_left_to_relay(found: StoredReservation, order: OrderSummary) -> None:
    look = compare_reservations([found], {ID: order}, NOW)
    assert (look.findings, look.suspects, look.counts) == ([], [], {PENDING_MESSAGES: 1})


@pytest.mark.parametrize(
    ("found", "order", "change", "problem"),
    [
        (reservation(HELD), summary(), Change.CONFIRM, "has stock that is only held"),
        (reservation(items=CUPS), summary(), Change.RELEASE, 'has stock of other products: 1 × "Cup"'),
        (reservation(), summary(Status.CANCELLED), Change.RELEASE, 'is CANCELLED, but still has stock: 2 × "Mug"'),
        (reservation(), summary(None), Change.RELEASE, 'has expired, but still has stock: 2 × "Mug"'),
    ],
)
def test_difference_that_stays_is_a_finding(
    found: StoredReservation, order: OrderSummary, change: Change, problem: str
) -> None:
    (finding,) = compare_suspects([found], {ID: order})
    assert (finding.order_id, finding.change, finding.problem) == (ID, change, problem)
    assert not finding.lost_order


@pytest.mark.parametrize(
    ("found", "order"), [(reservation(), summary()), (reservation(RELEASED), summary(Status.CANCELLED))]
)
def test_difference_that_is_gone_is_no_finding(found: StoredReservation, order: OrderSummary) -> None:
    assert compare_suspects([found], {ID: order}) == []


@pytest.mark.parametrize(
    ("found", "status", "change", "problem"),
    [
        (None, None, Change.RESERVE, '(INV-1) has lost its reservation: 2 × "Mug"'),
        (reservation(items=CUPS), None, None, "(INV-1) has no stock: its idempotency key was used for other products"),
        (reservation(RELEASED), Status.PROCESSED, Change.CANCEL, "(INV-1) was cancelled after the backup"),
        (reservation(RELEASED), Status.DELIVERED, None, "(INV-1) is DELIVERED, but its stock was released"),
    ],
)
def test_order_without_its_stock_is_a_finding(
    found: StoredReservation | None, status: Status | None, change: Change | None, problem: str
) -> None:
    order = OpenOrder(id=ID, number="INV-1", status=Status.PLACED, items=MUGS)
    (finding,) = compare_orders([order], {ID: found} if found else {}, {ID: status} if status else {})
    assert (finding.order_id, finding.change, finding.problem, finding.items) == (ID, change, problem, MUGS)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (reservation(), None),
        (reservation(HELD), None),
        (reservation(RELEASED), Status.CANCELLED),
        (reservation(RELEASED), None),
    ],
)
def test_order_with_its_stock_is_no_finding(found: StoredReservation, status: Status | None) -> None:
    order = OpenOrder(id=ID, number="INV-1", status=Status.PLACED, items=MUGS)
    assert compare_orders([order], {ID: found}, {ID: status} if status else {}) == []
