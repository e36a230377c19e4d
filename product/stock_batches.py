"""Stock for many reservations at once. Each request of a batch succeeds or fails by itself."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar
from uuid import UUID

from product.domain import INSUFFICIENT_STOCK
from product.reservation import (
    Hold,
    Item,
    LockedProduct,
    Reservation,
    ReservationState,
    check_same_items,
    rejection,
    reservation_not_found,
)
from product.stock_store import StockStore
from runtime.batch import isolate_failures
from runtime.errors import ApiError, unavailable
from runtime.refusals import DomainError

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Outcome = Reservation | Exception
"""The result of one request."""

MAX_ROUNDS = 3
"""How often a transition is tried on a reservation that other transactions change meanwhile."""


RESULTS = ("held", "confirmed", "released", "voided", "refused")
"""What becomes of reservations, for metrics. A reservation that is released before it was made is voided."""


class StockBatches:
    """Runs batches of reservations.

    Every method returns one outcome for each request, in the order of the requests. It raises an ApiError only where
    the outcome of all requests is unknown.
    """

    def __init__(self, store: StockStore) -> None:
        self._store = store
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        """How many reservations had each of the RESULTS."""
        self.stock_outs = 0
        """How many were refused because too little stock is left."""

    async def reserve(self, holds: Sequence[Hold]) -> list[Outcome]:
        """Makes reservations, or returns those that exist with the same items."""
        # Each round decides at least one, and nearly always all that had too little because of rejected ones.
        return await _repeat(holds, self._reserve, len(holds))

    async def confirm(self, ids: Sequence[UUID]) -> list[Outcome]:
        """Confirms holds. A reservation that is released stays so, and is returned as it is."""
        final = (ReservationState.CONFIRMED, ReservationState.RELEASED)
        return await self._change(ids, self._store.confirm, "reservation confirmed", final)

    async def release(self, ids: Sequence[UUID]) -> list[Outcome]:
        """Releases reservations, also those that do not exist yet."""
        return await self._change(ids, self._store.release, "reservation released", (ReservationState.RELEASED,))

    async def _reserve(self, holds: Sequence[Hold]) -> list[Outcome | None]:
        # Of holds with the same id, the first one. The next round decides the others, by what came of the first.
        first = {hold.id: hold for hold in reversed(holds)}
        together = [hold for hold in holds if first[hold.id] is hold]
        outcomes: dict[UUID, Outcome | None] = {}
        rejected: dict[UUID, Sequence[LockedProduct]] = {}
        for hold, products in zip(together, await self._store.reserve(together), strict=True):
            if reservation := _reservation(hold, products):
                outcomes[hold.id] = reservation
            else:
                rejected[hold.id] = products
        _log_changed("stock reserved", outcomes)
        self.results["held"] += len(outcomes)
        if rejected:
            # A reservation that exists goes before a rejection: it may be the reason why too little stock is left.
            try:
                existing = {each.id: each for each in await self._store.batch_get(list(rejected))}
            except ApiError as error:
                if not outcomes:
                    raise
                return [outcomes.get(hold.id, error) if first[hold.id] is hold else None for hold in holds]
            for key, products in rejected.items():
                hold = first[key]
                outcome = _replay(existing[key], hold) if key in existing else rejection(products, hold.expected)
                outcomes[key] = outcome
                if isinstance(outcome, DomainError):
                    self._count_refusal(outcome)
        return [outcomes[hold.id] if first[hold.id] is hold else None for hold in holds]

    def _count_refusal(self, error: DomainError) -> None:
        self.results["refused"] += 1
        if error.reason == INSUFFICIENT_STOCK:
            self.stock_outs += 1

    def _count_changed(self, changed: Sequence[Reservation]) -> None:
        for each in changed:
            self.results[each.state.lower() if each.items else "voided"] += 1

    async def _change(
        self,
        ids: Sequence[UUID],
        change: Callable[[Sequence[UUID]], Awaitable[Sequence[Reservation]]],
        message: str,
        final: tuple[ReservationState, ...],
    ) -> list[Outcome]:
        """Makes a transition, and logs `message`. A reservation in a `final` state is returned as it is."""

        async def step(those: Sequence[UUID]) -> list[Outcome | None]:
            reservations = await change(those)
            self._count_changed(reservations)
            changed = {each.id: each for each in reservations}
            _log_changed(message, changed)
            rest = [key for key in those if key not in changed]
            try:
                found = {each.id: each for each in await self._store.batch_get(rest)} if rest else {}
            except ApiError as error:
                if not changed:
                    raise
                return [changed.get(key, error) for key in those]

            def outcome(key: UUID) -> Outcome | None:
                reservation = found.get(key)
                if reservation is None:
                    return changed.get(key) or reservation_not_found(key)
                return reservation if reservation.state in final else None

            return [outcome(key) for key in those]

        different = list(dict.fromkeys(ids))
        outcomes = dict(zip(different, await _repeat(different, step, MAX_ROUNDS), strict=True))
        return [outcomes[key] for key in ids]


def _log_changed(message: str, ids: Collection[UUID]) -> None:
    """Logs one line for a batch: a line for each reservation would cost as much as the rest of the batch."""
    if ids:
        log.info(message, extra={"reservation_ids": [str(each) for each in ids]})


async def _repeat(
    requests: Sequence[Request],
    step: Callable[[Sequence[Request]], Awaitable[list[Outcome | None]]],
    max_rounds: int,
) -> list[Outcome]:
    """Runs a step, and repeats it with the requests for which it returned None."""
    outcomes: dict[int, Outcome] = {}
    for _ in range(max_rounds):
        left = [number for number in range(len(requests)) if number not in outcomes]
        if not left:
            break
        try:
            results = await isolate_failures(step, [requests[number] for number in left])
        except ApiError as error:
            if not outcomes:
                raise
            results = [error] * len(left)
        outcomes |= {number: result for number, result in zip(left, results, strict=True) if result is not None}
    return [outcomes.get(number) or _busy() for number in range(len(requests))]


def _busy() -> ApiError:
    return unavailable("other requests are changing the reservation; try again", retry_after=0.1)


def _reservation(hold: Hold, products: Sequence[LockedProduct]) -> Reservation | None:
    """Returns the reservation of these products, if it was made."""
    expire_time = products[0].expire_time
    if expire_time is None:
        return None
    items = tuple(
        Item(
            product_id=each.product_id,
            quantity=each.quantity,
            name=each.name or "",
            currency=each.currency or "",
            price_micros=each.price_micros or 0,
        )
        for each in products
    )
    return Reservation(id=hold.id, state=ReservationState.HELD, items=items, expire_time=expire_time)


def _replay(existing: Reservation, hold: Hold) -> Outcome:
    try:
        return check_same_items(existing, hold.items)
    except DomainError as error:
        return error
